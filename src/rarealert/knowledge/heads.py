"""The 33 heads of Orphanet's classifications, by ORPHA code.

Codes and names are the targets of "Preferential parent" in Orphadata's linearisation table
(product 7, 2025-06-24), and the two heads of it that no active disorder points to.
"""

from collections.abc import Mapping

HEADS: Mapping[str, str] = {
    "ORPHA:57146": "Rare hepatic disease",
    "ORPHA:68329": "Rare maxillo-facial surgical disease",
    "ORPHA:68367": "Rare inborn errors of metabolism",
    "ORPHA:68416": "Rare infectious disease",
    "ORPHA:89826": "Rare skin disease",
    "ORPHA:93419": "Rare bone disease",
    "ORPHA:93626": "Rare renal disease",
    "ORPHA:93890": "Rare developmental defect during embryogenesis",
    "ORPHA:96344": "Rare gynecologic or obstetric disease",
    "ORPHA:97929": "Rare cardiac disease",
    "ORPHA:97935": "Rare gastroenterologic disease",
    "ORPHA:97955": "Rare respiratory disease",
    "ORPHA:97962": "Rare surgical thoracic disease",
    "ORPHA:97965": "Rare surgical cardiac disease",
    "ORPHA:97966": "Rare ophthalmic disorder",
    "ORPHA:97978": "Rare endocrine disease",
    "ORPHA:97992": "Rare hematologic disease",
    "ORPHA:98004": "Rare immune disease",
    "ORPHA:98006": "Rare neurologic disease",
    "ORPHA:98023": "Rare systemic or rheumatologic disease",
    "ORPHA:98026": "Rare odontologic disease",
    "ORPHA:98028": "Rare circulatory system disease",
    "ORPHA:98036": "Rare otorhinolaryngologic disease",
    "ORPHA:98047": "Rare infertility",
    "ORPHA:98050": "Rare allergic disease",
    "ORPHA:98053": "Rare genetic disease",
    "ORPHA:101433": "Rare urogenital disease",
    "ORPHA:108999": "Rare disorder due to toxic effects",
    "ORPHA:165711": "Rare abdominal surgical disease",
    "ORPHA:250908": "Rare neoplastic disease",
    "ORPHA:506207": "Rare disorder potentially indicated for transplant",
    "ORPHA:565779": "Rare disorder potentially indicated for transplant or complication after "
    "transplantation",
    "ORPHA:616874": "Rare disorder without a determined diagnosis after full investigation",
}

# Makes golden.json beside it: `Rscript golden.R` with Debian's r-cran-proc and r-cran-rms.
# Data: golden.csv (label, first, second), made by numpy with seed 17 as test_golden.py says.
suppressMessages({library(pROC); library(rms)})
d <- read.csv("golden.csv")
one <- roc(d$label, d$first, quiet = TRUE, direction = "<")
two <- roc(d$label, d$second, quiet = TRUE, direction = "<")
test <- roc.test(one, two, method = "delong", paired = TRUE)
logit <- qlogis(d$first)
slope <- glm(label ~ logit, family = binomial, data = d, control = list(epsilon = 1e-12))
large <- glm(label ~ offset(logit), family = binomial, data = d, control = list(epsilon = 1e-12))
knots <- quantile(logit, c(.1, .5, .9), type = 1)
curve <- lrm(d$label ~ rcs(logit, knots), eps = 1e-12)
val <- val.prob(d$first, d$label, pl = FALSE)
threshold <- 0.05
alert <- d$first >= threshold
n <- nrow(d)
out <- c(
  auroc = as.numeric(auc(one)), auroc_second = as.numeric(auc(two)),
  delong_variance = var(one, method = "delong"), delong_p = test$p.value,
  brier = unname(val["Brier"]), calibration_slope = unname(coef(slope)[2]),
  calibration_intercept = unname(coef(large)[1]),
  ici = mean(abs(predict(curve, type = "fitted") - d$first)),
  val_prob_slope = unname(val["Slope"]), val_prob_eavg = unname(val["Eavg"]),
  net_benefit_at_5pct = sum(alert & d$label == 1) / n -
    sum(alert & d$label == 0) / n * threshold / (1 - threshold),
  sensitivity_at_95_specificity = max(coords(one, "all", ret = c("sensitivity", "specificity"),
    transpose = FALSE)$sensitivity[coords(one, "all", ret = c("sensitivity", "specificity"),
    transpose = FALSE)$specificity >= 0.95])
)
cat("{\n", paste(sprintf(' "%s": %.12f', names(out), out), collapse = ",\n"), "\n}\n", sep = "",
  file = "golden.json")
cat(R.version.string, "pROC", as.character(packageVersion("pROC")), "rms",
  as.character(packageVersion("rms")), "\n")

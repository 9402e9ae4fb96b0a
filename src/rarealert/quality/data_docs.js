// Replaces jQuery, Bootstrap and bootstrap-table, which Great Expectations' pages would fetch from
// the network: tables of the index, the filter of failed checks, and collapsible parts.
(() => {
  const table = (element, options) => {
    const head = options.columns.map((column) => `<th>${column.title}</th>`).join("");
    element.innerHTML = `<thead><tr>${head}</tr></thead><tbody></tbody>`;
    for (const row of options.data) {
      const line = element.tBodies[0].insertRow();
      line.innerHTML = options.columns.map((column) => `<td>${row[column.field] ?? ""}</td>`).join("");
      if (row._table_row_link_path) {
        const link = document.createElement("a");
        link.href = row._table_row_link_path;
        link.append(...line.cells[0].childNodes, ` ${row._validation_success_text ?? ""}`);
        line.cells[0].append(link);
      }
    }
  };
  const of = (elements) => ({
    bootstrapTable: (options) => {
      if (typeof options === "object") elements.forEach((element) => table(element, options));
    },
    each: (visit) => elements.forEach((element, index) => visit(index, element)),
    fadeIn: () => elements.forEach((element) => { element.hidden = false; }),
    fadeOut: () => elements.forEach((element) => { element.hidden = true; }),
    modal: () => {},
    on: () => {},
    parent: () => of([...new Set(elements.map((element) => element.parentElement))]),
    prepend: (html) => elements.forEach((element) => element.insertAdjacentHTML("afterbegin", html)),
    ready: (then) => document.addEventListener("DOMContentLoaded", then),
  });
  window.$ = (wanted) => of(typeof wanted === "string" ? [...document.querySelectorAll(wanted)] : [wanted]);
  document.addEventListener("click", (event) => {
    const fold = event.target.closest('[data-toggle="collapse"]');
    const part = fold?.dataset.target ?? fold?.getAttribute("href");
    if (part) {
      event.preventDefault();
      document.querySelector(part)?.classList.toggle("show");
    }
  });
})();

// Runs in the page that report.rs opens: it uses the switches as a reader would, and writes what it
// finds wrong into the page.
(() => {
  const wrong = [];
  const check = (claim, holds) => { if (!holds) wrong.push(claim); };
  const all = (selector) => [...document.querySelectorAll(selector)];
  const visible = (selector) => all(selector).filter((piece) => piece.offsetParent !== null);
  const choose = (id, value) => {
    const select = document.getElementById(id);
    select.value = value;
    check(`${id} offers ${value}`, select.value === value);
    select.dispatchEvent(new Event("change"));
  };
  const captions = () => visible("#table1 caption").map((caption) => caption.textContent);
  try {
    const [first, second] = [...document.getElementById("dataset").options].map((o) => o.value);
    check("the hostile name is text", first === "<" + "/script><b>" && !document.querySelector("b[onload], main > b"));
    check("one table is shown", captions().length === 1 && captions()[0].startsWith(`${first}: MAE`));
    choose("metric", "corr");
    check("the metric switches", captions().length === 1 && captions()[0].includes("Corr"));
    check("the heat map follows", document.querySelector("[data-chart=heat] figcaption").textContent.includes("Corr"));
    check("no table is wider than the page", document.documentElement.scrollWidth <= innerWidth);

    choose("dataset", second);
    check("the data set switches", captions().length === 1 && captions()[0].startsWith(`${second}: F1`));
    check("a metric that it lacks is left", document.getElementById("metric").value === "f1");
    check("the heat map has a shape per figure", all("[data-chart=heat] rect").length === 4 * 9);
    check("a panel per kind of holes", all("[data-chart=curves] figure").length === 4);
    check("a curve per model", all("[data-chart=curves] figure:first-child path.line").length === 4);
    document.querySelector(".legend button").click();
    check("the legend switches a model off", all("[data-chart=curves] figure:first-child path.line").length === 3);
    document.querySelector(".legend button").click();

    const panel = document.querySelector("[data-chart=curves] svg[tabindex]");
    const box = panel.getBoundingClientRect();
    panel.dispatchEvent(new PointerEvent("pointermove", { clientX: box.right - 20, clientY: box.top + 20 }));
    const tip = document.getElementById("tip");
    check("hovering tells the figures", !tip.hidden && tip.textContent.includes("100 % hidden") && tip.textContent.includes("CUMDF"));
    panel.dispatchEvent(new PointerEvent("pointerleave"));
    check("and leaves", tip.hidden);

    check("learning curves have their chosen epochs", all("[data-chart=learning] circle").length === 6);
    choose("measure", "loss");
    check("the training loss is drawn", all("[data-chart=learning] path.line").length === 6);
    check("seven confusions and seven calibrations", all("[data-chart=judged] figure").length === 14);
    choose("model", "linear");
    check("the model switches", document.querySelector("[data-chart=judged]").textContent.includes("linear"));
    choose("condition", "l");
    check("the condition switches", visible("#cases .case.gain, #cases .case.loss").every((c) => c.textContent.includes("under {l}")));

    const names = () => visible("#table1 tbody tr").map((row) => row.firstElementChild.textContent);
    const column = () => visible("#table1 tbody tr").map((row) => parseFloat(row.children[7].textContent));
    const before = names();
    const head = visible("#table1 thead th")[7];
    const sorted = (values, sign) => values.every((v, i) => i === 0 || sign * (values[i - 1] - v) <= 0);
    head.querySelector("button").click();
    check("the best comes first", head.getAttribute("aria-sort") === "descending" && sorted(column(), -1));
    head.querySelector("button").click();
    check("then the worst", sorted(column(), 1));
    head.querySelector("button").click();
    check("then the old order", String(names()) === String(before));
  } catch (error) {
    wrong.push(String(error.stack));
  }
  const result = document.createElement("pre");
  result.id = "checked";
  result.textContent = wrong.length ? wrong.join("\n") : "all is well";
  document.body.append(result);
})();

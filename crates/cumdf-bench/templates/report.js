// Draws the charts of the report from the JSON at the end of the page, and makes its tables sort and
// switch. Without this script the tables are all there.
"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  // Okabe and Ito's colours, which all eyes tell apart, without black and the yellow that white hides.
  const COLOURS = ["#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c6bb1", "#8a6d3b"];
  const OWN = "#0b78c8";
  const FLOOR = "#8a939c";

  let data = read(document);
  // What is chosen. It outlives a renewal of the page.
  const chosen = { dataset: null, metric: null, model: null, condition: null, measure: "score" };
  const hidden = new Set(); // models that the legend has switched off

  function read(page) {
    return JSON.parse(page.getElementById("data").textContent);
  }

  // ---- elements

  function element(space, tag, attributes, children) {
    const made = space ? document.createElementNS(space, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null && value !== undefined) made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }
  const html = (tag, attributes = {}, ...children) => element(null, tag, attributes, children);
  const svg = (tag, attributes = {}, ...children) => element(SVG, tag, attributes, children);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const text = (x, y, words, attributes = {}) => svg("text", { x, y, ...attributes }, words);

  function figure(title, drawing, note = "") {
    const caption = html("figcaption", {}, title, note ? html("small", {}, ` ${note}`) : "");
    return html("figure", {}, caption, drawing);
  }

  function canvas(width, height, label, ...children) {
    return svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, ...children);
  }

  // ---- numbers

  const metric = (key) => data.metrics.find((m) => m.key === key);
  const shown = (key, value) => value.toFixed(metric(key)?.digits ?? 3);

  // Round numbers between two ends, about `n` of them, at `least` so far apart.
  function ticks(low, high, n = 5, least = 0) {
    const rough = (high - low) / n || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = Math.max(least, [1, 2, 5, 10].map((s) => s * power).find((s) => s >= rough));
    const found = [];
    for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i++) found.push(i * step);
    return { values: found, digits: Math.max(0, -Math.floor(Math.log10(step))) };
  }

  const line = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

  // ---- models

  // A model has one colour on the whole page.
  function look(key, isFloor) {
    if (key === "cumdf") return { colour: OWN, dash: null, own: true };
    const rows = data.tables.flatMap((t) => t.parts).flatMap((p) => p.rows);
    const keys = [...new Set(rows.filter((r) => r.floor === isFloor && r.model !== "cumdf").map((r) => r.model))];
    const at = Math.max(0, keys.indexOf(key));
    if (isFloor) return { colour: FLOOR, dash: ["6 4", "2 3", "8 3 2 3"][at % 3] };
    return { colour: COLOURS[at % COLOURS.length], dash: at >= COLOURS.length ? "7 3" : null };
  }

  function swatch({ colour, dash, own }) {
    const stroke = { x1: 0, y1: 5, x2: 22, y2: 5, stroke: colour, "stroke-width": own ? 4 : 2.5, "stroke-dasharray": dash };
    return svg("svg", { viewBox: "0 0 22 10", "aria-hidden": "true" }, svg("line", stroke));
  }

  // ---- the box that follows the pointer

  function tell(event, ...content) {
    const tip = document.getElementById("tip");
    tip.replaceChildren(...content);
    tip.hidden = false;
    const box = event.target.getBoundingClientRect();
    const [x, y] = [event.clientX ?? box.left + box.width / 2, event.clientY ?? box.top];
    const left = x + 16 + tip.offsetWidth > innerWidth ? x - 16 - tip.offsetWidth : x + 16;
    tip.style.left = `${Math.max(4, Math.min(left, innerWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${Math.max(4, Math.min(y + 12, innerHeight - tip.offsetHeight - 4))}px`;
  }
  const hush = () => { document.getElementById("tip").hidden = true; };

  // Shows `words` beside whatever the pointer is on.
  function explain(shape, words) {
    shape.append(svg("title", {}, words));
    shape.addEventListener("pointermove", (event) => tell(event, words));
    shape.addEventListener("pointerleave", hush);
    return shape;
  }

  // ---- heat map: models by conditions, the floor is zero

  function heat(box) {
    const part = data.tables[box.dataset.table].parts.find((p) => p.dataset === chosen.dataset);
    const m = part ? part.metrics.indexOf(chosen.metric) : -1;
    if (m < 0) return [];
    const { label, lower, digits } = metric(chosen.metric);
    const rows = part.rows.map((row, r) => ({ ...row, cells: part.cells[m][r] }));
    const gain = (cell, c) => {
      const floor = part.floors[m][c];
      if (cell.mean === undefined || !floor) return null;
      return lower ? floor.mean - cell.mean : cell.mean - floor.mean;
    };
    const gains = rows.filter((r) => !r.floor).flatMap((r) => r.cells.map(gain)).filter((g) => g !== null);
    const most = Math.max(...gains.map(Math.abs), 1e-9);
    const width = Math.max(320, box.clientWidth || 720);
    const left = Math.min(width * 0.34, 14 + 6.6 * Math.max(...rows.map((r) => r.name.length)));
    const cell = Math.min(84, (width - left) / part.columns.length);
    const [high, top] = [26, 22];
    const font = cell < 40 ? 9 : 11;
    const shapes = part.columns.map((column, c) =>
      text(left + (c + 0.5) * cell, 14, column.label, { "text-anchor": "middle", "font-size": font }));
    rows.forEach((row, r) => {
      const y = top + r * high;
      shapes.push(text(0, y + high * 0.66, row.name, { class: row.model === "cumdf" ? "ink" : null, "font-size": font,
        "font-weight": row.model === "cumdf" ? 700 : null }));
      row.cells.forEach((one, c) => {
        const g = gain(one, c);
        const share = g === null ? 0 : Math.min(1, Math.abs(g) / most);
        const side = g > 0 ? "--better" : "--worse";
        const fill = `color-mix(in oklab, var(${side}) ${Math.round(100 * share)}%, var(--zero))`;
        const at = { x: left + c * cell, y, width: cell - 1.5, height: high - 1.5, rx: 2 };
        const floor = part.floors[m][c];
        const words = g === null ? `${row.name}, ${part.columns[c].label}: ${one.note ?? "no floor"}`
          : `${row.name}, ${part.columns[c].label}: ${label} ${one.mean.toFixed(digits)}` +
            (one.std === undefined ? "" : ` ± ${one.std.toFixed(digits)}`) +
            `; best floor ${floor.mean.toFixed(digits)} (${floor.of}); ` +
            (g === 0 ? "this is it" : `${Math.abs(g).toFixed(digits)} ${g > 0 ? "better" : "worse"}`);
        const difference = g === null ? "–" : signed(one.mean - floor.mean, cell < 40 ? digits - 1 : digits);
        shapes.push(explain(svg("g", {},
          svg("rect", { ...at, style: `fill:${fill}` }),
          text(at.x + cell / 2, y + high * 0.66, difference, { "text-anchor": "middle", class: "ink", "font-size": font })), words));
      });
    });
    const drawing = canvas(width, top + rows.length * high + 4, `${label} against the best floor`, ...shapes);
    const caption = `${part.dataset}: ${label} less the best floor of the column`;
    const note = lower ? "blue: lower, better; orange: higher, worse" : "blue: higher, better; orange: lower, worse";
    return [figure(caption, drawing, note)];
  }

  function signed(value, digits) {
    const words = Math.abs(value).toFixed(digits);
    return Number(words) === 0 ? "0" : (value > 0 ? "+" : "−") + words;
  }

  // ---- figure 3: curves over the share of hidden frames

  function curves(box) {
    const parts = data.tables[box.dataset.table].parts
      .filter((p) => p.dataset === chosen.dataset && p.metrics.includes(chosen.metric));
    if (!parts.length) return [html("p", {}, "There are no curves of this data set and metric.")];
    return [legend(parts[0].rows), html("div", { class: "panels" }, ...parts.map(curvePanel))];
  }

  function legend(rows) {
    const button = ({ model, name, floor }) => {
      const made = html("button", { type: "button", "aria-pressed": String(!hidden.has(model)) }, swatch(look(model, floor)), name);
      made.addEventListener("click", () => {
        if (!hidden.delete(model)) hidden.add(model);
        draw("curves");
      });
      return made;
    };
    return html("div", { class: "legend", role: "group", "aria-label": "models" }, ...rows.map(button));
  }

  function curvePanel(part) {
    const m = part.metrics.indexOf(chosen.metric);
    const places = part.columns.map((column, c) => ({ x: column.x, c })).filter((p) => p.x !== undefined);
    const series = part.rows.map((row, r) => {
      const at = ({ x, c }) => ({ x, ...part.cells[m][r][c] });
      return { ...row, ...look(row.model, row.floor), points: places.map(at).filter((p) => p.mean !== undefined) };
    }).filter((s) => !hidden.has(s.model) && s.points.length);
    const values = series.flatMap((s) => s.points.flatMap((p) => [p.mean - (p.std ?? 0), p.mean + (p.std ?? 0)]));
    if (!values.length) return figure(part.title, html("p", {}, "All models are switched off."));
    const frame = axes({
      width: 380, height: 270, x: [Math.min(...places.map((p) => p.x)), Math.max(...places.map((p) => p.x))],
      y: [Math.min(...values), Math.max(...values)],
    });
    const shapes = [];
    for (const s of [...series].sort((a, b) => (a.own ? 1 : 0) - (b.own ? 1 : 0))) {
      const at = (value) => s.points.map((p) => [frame.x(p.x), frame.y(value(p))]);
      if (s.points.some((p) => p.std)) {
        const band = at((p) => p.mean + (p.std ?? 0)).concat(at((p) => p.mean - (p.std ?? 0)).reverse());
        shapes.push(svg("path", { d: `${line(band)}Z`, class: "faint", fill: s.colour }));
      }
      shapes.push(svg("path", { d: line(at((p) => p.mean)), class: s.own ? "line own" : "line", stroke: s.colour, "stroke-dasharray": s.dash }));
    }
    const cross = svg("line", { class: "cross", y1: frame.top, y2: frame.bottom, visibility: "hidden" });
    const { label } = metric(chosen.metric);
    const drawing = canvas(380, 270, `${label}, ${part.title}`, ...frame.shapes, ...shapes, cross);
    const xs = places.map((p) => p.x);
    let at = -1;
    const point = (event, i) => {
      at = i;
      cross.setAttribute("x1", frame.x(xs[i]));
      cross.setAttribute("x2", frame.x(xs[i]));
      cross.setAttribute("visibility", "visible");
      const lines = series.map((s) => ({ ...s, here: s.points.find((p) => p.x === xs[i]) })).filter((s) => s.here)
        .sort((a, b) => (metric(chosen.metric).lower ? 1 : -1) * (a.here.mean - b.here.mean))
        .map((s) => html("div", {}, swatch(s), html("span", {}, s.name), shown(chosen.metric, s.here.mean)));
      tell(event, html("b", {}, `${Math.round(100 * xs[i])} % hidden: ${label}`), ...lines);
    };
    drawing.setAttribute("tabindex", "0");
    drawing.addEventListener("pointermove", (event) => {
      const box = drawing.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * 380;
      const far = xs.map((value) => Math.abs(frame.x(value) - x));
      point(event, far.indexOf(Math.min(...far)));
    });
    const leave = () => { hush(); cross.setAttribute("visibility", "hidden"); };
    drawing.addEventListener("pointerleave", leave);
    drawing.addEventListener("blur", leave);
    drawing.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step) { point(event, Math.max(0, Math.min(xs.length - 1, at + step))); event.preventDefault(); }
    });
    return figure(part.title, drawing, `${label} over the share of hidden frames`);
  }

  // Axes of a panel, and the functions that place a value on them.
  function axes({ width, height, x, y, n = 5, least = 0 }) {
    const room = (y[1] - y[0]) * 0.05 || Math.abs(y[0]) * 0.05 || 1;
    const ends = [y[0] - room, y[1] + room];
    const up = ticks(ends[0], ends[1], n);
    const across = ticks(x[0], x[1], n, least);
    const box = { left: 42, right: width - 8, top: 6, bottom: height - 20 };
    const placeX = (v) => box.left + (v - x[0]) / (x[1] - x[0] || 1) * (box.right - box.left);
    const placeY = (v) => box.bottom - (v - ends[0]) / (ends[1] - ends[0]) * (box.bottom - box.top);
    const shapes = up.values.flatMap((v) => [
      svg("line", { class: "axis", x1: box.left, x2: box.right, y1: placeY(v), y2: placeY(v) }),
      text(box.left - 5, placeY(v) + 3.5, v.toFixed(up.digits), { "text-anchor": "end" }),
    ]);
    shapes.push(...across.values.map((v) => text(placeX(v), height - 5, v.toFixed(across.digits), { "text-anchor": "middle" })));
    return { ...box, x: placeX, y: placeY, shapes };
  }

  // ---- learning curves

  function learning() {
    const cells = data.cells.filter((cell) => cell.dataset === chosen.dataset && cell.stages.length);
    const panels = new Map(); // model and stage -> curves
    for (const cell of cells) {
      for (const stage of cell.stages) {
        const key = `${cell.name}, ${stage.name}`;
        if (!panels.has(key)) panels.set(key, []);
        panels.get(key).push({ cell, stage });
      }
    }
    if (!panels.size) return [html("p", {}, "No training of this data set has finished an epoch.")];
    return [html("div", { class: "panels middle" },
      ...[...panels].map(([title, runs]) => learningPanel(title, runs)))];
  }

  function learningPanel(title, runs) {
    const curve = ({ cell, stage }) => ({
      cell, stage,
      points: stage.epochs.map((epoch, i) => [epoch, stage[chosen.measure][i]]).filter((p) => p[1] !== null),
    });
    const drawn = runs.map(curve).filter((c) => c.points.length);
    const values = drawn.flatMap((c) => c.points.map((p) => p[1]));
    if (!values.length) return figure(title, html("p", {}, "not logged"));
    const last = Math.max(...drawn.flatMap((c) => c.stage.epochs));
    const frame = axes({ width: 280, height: 180, x: [1, Math.max(2, last)], y: [Math.min(...values), Math.max(...values)], n: 4, least: 1 });
    const shapes = drawn.flatMap(({ cell, stage, points }, i) => {
      const colour = i ? COLOURS[(i - 1) % COLOURS.length] : OWN;
      const seed = cell.seed === null ? "" : `seed ${cell.seed}, `;
      const words = `${seed}chosen epoch ${stage.chosen ?? "none yet"} of ${stage.epochs.length} (${cell.folder})`;
      const parts = [svg("path", { class: "line", stroke: colour, d: line(points.map(([x, y]) => [frame.x(x), frame.y(y)])) })];
      const best = points.find((p) => p[0] === stage.chosen);
      if (best) parts.push(svg("circle", { cx: frame.x(best[0]), cy: frame.y(best[1]), r: 4, fill: colour, stroke: "var(--ground)", "stroke-width": 1.5 }));
      return [explain(svg("g", {}, ...parts), words)];
    });
    const epochs = [...new Set(drawn.map((c) => c.stage.chosen ?? "–"))];
    const note = epochs.length <= 5 ? `epoch ${epochs.join(", ")}` : `${drawn.length} trainings`;
    return figure(title, canvas(280, 180, `${title}: ${chosen.measure} by epoch`, ...frame.shapes, ...shapes), note);
  }

  // ---- calibration and confusion

  function judged() {
    const set = data.judged.find((j) => j.dataset === chosen.dataset);
    const model = set?.models.find((m) => m.model === chosen.model);
    if (!model) return [];
    const under = set.conditions.map(([, label], c) => [label, model.conditions[c]]).filter(([, verdict]) => verdict);
    const rows = [];
    const row = (title, panels) => rows.push(html("h4", {}, title), html("div", { class: "panels small" }, ...panels));
    if (model.probabilities) {
      row(`${model.name}: ${model.probabilities} against how often it is true`,
        under.map(([label, v]) => figure(label, dots(v.reliability.bins, [0, 1], `${model.name} ${label}: calibration`), `ECE ${v.reliability.ece.toFixed(3)}`)));
    }
    if (under.some(([, v]) => v.scores)) {
      const ends = [Number(set.classes[0]), Number(set.classes.at(-1))];
      row(`${model.name}: true score (up) by predicted score (across)`,
        under.map(([label, v]) => figure(label, dots(v.scores, ends, `${model.name} ${label}: scores`))));
    }
    row(`${model.name}: confusion, true classes down, said classes across`,
      under.map(([label, v]) => figure(label, confusion(v.confusion, set.classes, `${model.name} ${label}: confusion`))));
    return rows;
  }

  // What was said (across) against what was true (up); on the diagonal both agree.
  function dots(bins, [low, high], label) {
    const [size, left, bottom] = [200, 26, 18];
    const place = (v) => (v - low) / (high - low) * (size - left - 8);
    const x = (v) => left + place(v);
    const y = (v) => size - bottom - place(v) * (size - bottom - 6) / (size - left - 8);
    const { values, digits } = ticks(low, high, 4);
    const most = Math.max(...bins.map((b) => b.n));
    const grid = values.flatMap((v) => [
      text(x(v), size - 4, v.toFixed(digits), { "text-anchor": "middle" }),
      text(left - 5, y(v) + 3.5, v.toFixed(digits), { "text-anchor": "end" }),
    ]);
    const points = bins.map((b) => [x(b.said), y(b.was)]);
    const marks = bins.map((b, i) => explain(svg("circle", { cx: points[i][0], cy: points[i][1], r: 2.5 + 6 * Math.sqrt(b.n / most), fill: OWN, "fill-opacity": 0.75 }),
      `says ${b.said.toFixed(2)}, true is ${b.was.toFixed(2)}: ${b.n} answers`));
    return canvas(size, size, label,
      svg("rect", { class: "axis", x: left, y: 6, width: size - left - 8, height: size - bottom - 6 }),
      svg("line", { class: "axis", x1: x(low), y1: y(low), x2: x(high), y2: y(high), style: "stroke:var(--soft)", "stroke-dasharray": "3 3" }),
      ...grid, svg("path", { class: "line", d: line(points), stroke: OWN, opacity: 0.5 }), ...marks);
  }

  function confusion(counts, classes, label) {
    const n = classes.length;
    const short = (name) => (name.length > 7 ? `${name.slice(0, 6)}…` : name);
    const left = Math.min(52, 10 + 6 * Math.max(...classes.map((c) => short(c).length)));
    const [size, top] = [(200 - left) / n, 16];
    const shapes = classes.map((name, c) => text(left + (c + 0.5) * size, 11, short(name), { "text-anchor": "middle", "font-size": Math.min(10, size * 0.34 + 3) }));
    counts.forEach((row, t) => {
      const total = row.reduce((sum, count) => sum + count, 0);
      shapes.push(text(left - 5, top + (t + 0.62) * size, short(classes[t]), { "text-anchor": "end", "font-size": 10 }));
      row.forEach((count, s) => {
        const share = total ? Math.round(100 * count / total) : 0;
        const at = { x: left + s * size, y: top + t * size };
        const fill = `color-mix(in oklab, var(--better) ${share}%, var(--zero))`;
        shapes.push(explain(svg("g", {},
          svg("rect", { ...at, width: size - 1, height: size - 1, style: `fill:${fill}${s === t ? ";stroke:var(--soft)" : ""}` }),
          text(at.x + size / 2, at.y + size * 0.62, count, { "text-anchor": "middle", class: "ink", "font-size": Math.min(10, size * 0.42) })),
        `true ${classes[t]}, said ${classes[s]}: ${count}, ${share} % of the true ones`));
      });
    });
    return canvas(200, top + n * size + 2, label, ...shapes);
  }

  // ---- switches

  const DRAW = { heat, curves, learning, judged };

  function draw(...kinds) {
    for (const box of all(".chart")) {
      if (!kinds.length || kinds.includes(box.dataset.chart)) box.replaceChildren(...DRAW[box.dataset.chart](box));
    }
  }

  // The keys that a select offers, in order, as [key, words].
  const OPTIONS = {
    dataset: () => data.datasets.map((name) => [name, name]),
    metric: () => {
      const parts = data.tables.flatMap((t) => t.parts).filter((p) => p.dataset === chosen.dataset);
      const keys = new Set(parts.flatMap((p) => p.metrics));
      return data.metrics.filter((m) => keys.has(m.key)).map((m) => [m.key, m.label]);
    },
    model: () => (data.judged.find((j) => j.dataset === chosen.dataset)?.models ?? []).map((m) => [m.model, m.name]),
    condition: () => (data.judged.find((j) => j.dataset === chosen.dataset)?.conditions ?? []),
  };
  // CUMDF, and all that a data set has.
  const PREFERRED = { model: (keys) => keys.find((key) => key === "cumdf"), condition: (keys) => keys.at(-1) };

  function refresh() {
    for (const [name, options] of Object.entries(OPTIONS)) {
      const offered = options();
      const keys = offered.map(([key]) => key);
      if (!keys.includes(chosen[name])) {
        chosen[name] = PREFERRED[name]?.(keys) ?? keys[0] ?? null;
      }
      const select = document.getElementById(name);
      select.replaceChildren(...offered.map(([value, words]) => html("option", { value }, words)));
      select.value = chosen[name] ?? "";
      select.closest("label").hidden = offered.length < 2;
    }
    document.getElementById("measure").value = chosen.measure;
    for (const [name, value] of [["dataset", chosen.dataset], ["metric", chosen.metric]]) {
      for (const piece of all(`main [data-${name}]`)) piece.toggleAttribute(`data-not-${name}`, piece.dataset[name] !== value);
    }
    for (const piece of all("main [data-condition]")) {
      piece.toggleAttribute("data-not-condition", !["", chosen.condition].includes(piece.dataset.condition));
    }
    for (const piece of all("main [data-dataset], main [data-condition]")) {
      piece.hidden = ["data-not-dataset", "data-not-metric", "data-not-condition"].some((not) => piece.hasAttribute(not));
    }
    for (const lacking of all("section.results > .lacking")) {
      lacking.hidden = [...lacking.parentElement.querySelectorAll(".part")].some((part) => !part.hidden);
    }
    draw();
  }

  function wire() {
    for (const name of [...Object.keys(OPTIONS), "measure"]) {
      // Set rather than added: the bar outlives a renewal.
      document.getElementById(name).onchange = (event) => {
        chosen[name] = event.target.value;
        refresh();
      };
    }
    all("table.sortable").forEach(sortable);
  }

  // ---- tables that sort

  function sortable(table) {
    const rows = all("tbody tr", table);
    all("thead th", table).forEach((head, column) => {
      const button = html("button", { type: "button", title: "sort" }, ...head.childNodes);
      head.replaceChildren(button);
      button.addEventListener("click", () => sort(table, rows, head, column));
    });
  }

  // The first click brings what is best to the top, the second what is worst, the third the old order.
  function sort(table, rows, head, column) {
    const value = (row) => {
      const cell = row.children[column];
      const words = (cell.dataset.value ?? cell.firstChild?.textContent ?? "").trim().replace("−", "-");
      return words === "" ? null : Number.isNaN(Number(words)) ? words : Number(words);
    };
    const first = column === 0 || "lower" in table.dataset ? "ascending" : "descending";
    const second = first === "ascending" ? "descending" : "ascending";
    const next = { none: first, [first]: second, [second]: "none" }[head.getAttribute("aria-sort") ?? "none"];
    all("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
    const sorted = [...rows];
    if (next !== "none") {
      head.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      const missing = (v) => v === null || v === "–" || v === "n/a" || v === "failed";
      sorted.sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (missing(x) || missing(y)) return missing(x) - missing(y);
        if (typeof x === "number" && typeof y === "number") return sign * (x - y);
        return sign * String(x).localeCompare(String(y));
      });
    }
    table.tBodies[0].append(...sorted);
  }

  // ---- a page that renews itself

  async function renew() {
    const say = (words) => { const line = document.getElementById("watch"); if (line) line.textContent = words; };
    try {
      const state = await (await fetch("state")).text();
      if (state === data.state) return;
      const answer = await fetch("/");
      if (!answer.ok) throw new Error(await answer.text());
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      data = read(page);
      for (const selector of ["header", "nav .links", "main", "footer"]) {
        document.querySelector(selector).replaceWith(document.adoptNode(page.querySelector(selector)));
      }
      document.title = page.title;
      start();
      say(`Renewed ${new Date().toLocaleTimeString()}; goes on as cells finish.`);
    } catch (error) {
      say(`The results cannot be had now (${error.message}); this is what they were.`);
    }
  }

  function start() {
    wire();
    refresh();
  }

  document.documentElement.classList.add("scripted");
  start();
  let resized;
  addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(() => draw("heat"), 150); });
  if (data.state) setInterval(renew, 3000);
})();

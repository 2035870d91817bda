"use strict";

// Nothing here writes HTML: what models and users wrote becomes text.
const make = (tag, text = "", kind = "") => {
  const element = document.createElement(tag);
  element.textContent = text;
  if (kind) element.className = kind;
  return element;
};

// The button that shows the report's code.
document.getElementById("code")?.addEventListener("click", (event) => {
  event.target.setAttribute("aria-pressed", String(document.body.classList.toggle("code")));
});

// A head sorts its table, first with the best on top; a second press turns it round. Empty cells stay last.
const sort = (head) => {
  const table = head.closest("table"), column = head.cellIndex;
  const before = head.getAttribute("aria-sort");
  const down = before ? before === "ascending" : head.dataset.first === "descending";
  table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = (body) => {
    const cell = body.rows[0].cells[column];
    return cell.dataset.value ?? cell.textContent.trim();
  };
  [...table.tBodies].sort((a, b) => {
    const x = key(a), y = key(b);
    if (x === "" || y === "") return (x === "") - (y === "");
    const order = isNaN(x) || isNaN(y) ? x.localeCompare(y, "en", { numeric: true }) : x - y;
    return down ? -order : order;
  }).forEach((body) => table.append(body));
};

// A row opens: what else is known of it stands in the row below.
const opener = (row, more) => {
  const button = make("button", "", "more");
  button.type = "button";
  button.setAttribute("aria-label", `details of ${row.cells[0].textContent}`);
  button.setAttribute("aria-expanded", "false");
  button.addEventListener("click", () => {
    more.hidden = !more.hidden;
    button.setAttribute("aria-expanded", String(!more.hidden));
  });
  row.cells[0].firstElementChild.append(button);
};

// A word in the field leaves the rows whose method or setting holds it.
const words = (body) => [body.rows[0].cells[0], ...body.querySelectorAll("dd")].map((one) => one.textContent).join(" ");

const filter = (comparison, bodies) => {
  const bar = make("div", "", "controls"), label = make("label", "Filter "), said = make("span", "", "muted");
  const field = make("input");
  field.type = "search";
  field.placeholder = "lora";
  said.setAttribute("role", "status");
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    let shown = 0;
    for (const body of bodies) {
      body.hidden = !words(body).toLowerCase().includes(wanted);
      shown += !body.hidden;
    }
    said.textContent = wanted ? `${shown} of ${bodies.length} rows` : "";
  });
  label.append(field);
  bar.append(label, said);
  comparison.prepend(bar);
};

document.querySelectorAll(".comparison").forEach((comparison) => {
  const table = comparison.querySelector("table"), bodies = [...table.tBodies];
  table.querySelectorAll("th").forEach((head) => head.firstElementChild.addEventListener("click", () => sort(head)));
  bodies.forEach((body) => body.rows[1] && opener(body.rows[0], body.rows[1]));
  if (bodies.length > 5) filter(comparison, bodies);
});

// Two methods side by side.
let choices = 0;
const choice = (name, options, chosen) => {
  const group = make("span"), label = make("label", name), select = make("select");
  select.id = label.htmlFor = `choice-${++choices}`;
  options.forEach(([value, text]) => {
    const option = make("option", text);
    option.value = value;
    select.append(option);
  });
  select.value = chosen;
  group.append(label, " ", select);
  return [group, select];
};

const which = (binary) => binary
  ? { all: "all", a: "A right, B wrong", b: "A wrong, B right", none: "both wrong", both: "both right" }
  : { all: "all", a: "A better, most first", b: "B better, most first" };

const answer = (title, text, score, metric) => {
  const block = make("div");
  block.append(make("h4", title), make("p", text ?? "no answer was kept"));
  if (score !== undefined && score !== null) block.append(make("small", `${metric} ${score}`));
  return block;
};

const STEP = 5;

document.querySelectorAll(".pairs").forEach((place) => {
  const data = JSON.parse(place.querySelector("script").textContent), sign = data.higher ? 1 : -1;
  const names = data.methods.map((name, index) => [String(index), name]);
  const controls = make("div", "", "controls"), said = make("span", "", "muted"), list = make("div");
  const [labelA, a] = choice("A", names, "0"), [labelB, b] = choice("B", names, "1");
  const kinds = which(data.binary), [labelShow, show] = choice("Show", Object.entries(kinds), "all");
  const further = make("button", "Show more");
  further.type = "button";
  said.setAttribute("role", "status");
  let count = STEP;

  const wanted = () => {
    const left = Number(a.value), right = Number(b.value);
    const score = (example, side) => example.scores[side];
    const lead = (example) => sign * (score(example, left) - score(example, right));
    const known = data.examples.filter((one) => score(one, left) !== null && score(one, right) !== null);
    const good = (value) => value === (data.higher ? 1 : 0);
    const byLead = (towards) => known.filter((one) => towards * lead(one) > 0)
      .sort((one, other) => towards * (lead(other) - lead(one)));
    switch (show.value) {
      case "a": return byLead(1);
      case "b": return byLead(-1);
      case "none": return known.filter((one) => !good(score(one, left)) && !good(score(one, right)));
      case "both": return known.filter((one) => good(score(one, left)) && good(score(one, right)));
      default: return data.examples;
    }
  };

  const draw = () => {
    const examples = wanted();
    said.textContent = `${examples.length} of ${data.examples.length} examples`;
    list.replaceChildren(...examples.slice(0, count).map((one) => {
      const article = make("article", "", "example"), columns = make("div", "", "columns");
      columns.append(answer("expected", one.expected));
      for (const select of [a, b]) {
        const side = Number(select.value);
        columns.append(answer(data.methods[side], one.answers[side], one.scores[side], data.metric));
      }
      article.append(make("h4", `Example ${one.n}`), make("pre", one.prompt), columns);
      return article;
    }));
    further.hidden = examples.length <= count;
  };

  [a, b, show].forEach((select) => select.addEventListener("change", () => { count = STEP; draw(); }));
  further.addEventListener("click", () => { count += 2 * STEP; draw(); });
  controls.append(labelA, labelB, labelShow, said);
  place.append(controls, list, further);
  place.hidden = false;
  draw();
});

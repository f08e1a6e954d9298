// What moves on the pages: live jobs, live leaderboards, forms. Everything comes from /api/v1.

const $ = (selector, within = document) => within.querySelector(selector);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const duration = (s) =>
  s < 90 ? `${Math.round(s)} s` : s < 5400 ? `${Math.round(s / 60)} min` : `${Math.floor(s / 3600)} h ${Math.round((s % 3600) / 60)} min`;

function place(job) {
  const p = job.progress;
  const box = make("div", { class: "progress" });
  if (["succeeded", "failed", "cancelled"].includes(job.state)) {
    if (job.error) box.append(make("span", { class: "bad" }, job.error));
  } else if (job.cancelling) {
    box.append(make("span", {}, "is being cancelled"));
  } else if (p.fraction !== undefined) {
    box.append(make("progress", { max: 1, value: p.fraction, "aria-label": p.stage }));
    const left = p.left_s === undefined ? "" : `, about ${duration(p.left_s)} left in this stage`;
    box.append(make("span", {}, `${p.stage} ${p.done.toLocaleString()} of ${p.total.toLocaleString()}${left}`));
  } else if (job.state === "queued") {
    const starts = job.starts_in_s ? `, starts in about ${duration(job.starts_in_s)} if jobs last as usual` : "";
    const before = job.before ? `, ${job.before} ${job.before === 1 ? "job" : "jobs"} before it` : "";
    box.append(make("span", {}, `waits${before}${starts}`));
  } else {
    box.append(make("span", {}, "begins"));
  }
  return box;
}

// An architecture may go on in the next line after each of its choices.
function breakable(architecture) {
  return architecture.split(/(?<=,)/).flatMap((part) => [part, make("wbr")]);
}

function state(job) {
  return make("span", { class: `state ${job.state}` }, job.state);
}

// The browser connects again by itself; the first event after that is the present state.
function listen(address, kind, heard) {
  const stream = new EventSource(address);
  const line = $("#connection");
  stream.onopen = () => (line.textContent = "");
  stream.onerror = () => {
    line.textContent = "connection lost, trying again";
    if (stream.readyState === EventSource.CLOSED) setTimeout(() => listen(address, kind, heard), 2000);
  };
  stream.addEventListener(kind, (event) => heard(JSON.parse(event.data), stream));
  return stream;
}

async function call(method, address, body, headers = {}) {
  const options = { method, headers: { ...headers } };
  if (body instanceof Blob) {
    options.body = body;
  } else if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const answer = await fetch(address, options);
  const told = answer.status === 204 ? {} : await answer.json();
  if (!answer.ok) throw Object.assign(new Error(told.detail ?? answer.statusText), { where: told.errors?.[0]?.where });
  return told;
}

// What went wrong, in words: a browser only says that it could not fetch.
function reason(error) {
  return error instanceof TypeError ? "the server does not answer: is it running?" : error.message;
}

function complain(text) {
  $("#said").textContent = text;
  $("#said").className = "bad";
}

function liveOverview() {
  const table = $("#jobs");
  if (!table) return listen("/api/v1/events", "jobs", (jobs) => jobs.length && location.reload());
  let open;
  return listen(table.dataset.live, "jobs", (jobs) => {
    const now = new Set(jobs.map((job) => job.id));
    // What the page was made with is not compared with the first event: a page that reloads for that might never stop.
    if (open && (now.size !== open.size || [...now].some((id) => !open.has(id)))) return location.reload();
    open = now;
    for (const job of jobs) {
      const row = $(`tr[data-job="${job.id}"]`, table);
      if (!row) continue;
      row.children[1].replaceChildren(state(job));
      row.children[2].replaceChildren(place(job));
    }
  });
}

function liveJob(page) {
  const log = $("#log");
  let lines = log.textContent;
  const readLog = async () => {
    const text = await (await fetch(log.dataset.log)).text();
    if (text !== lines) {
      lines = log.textContent = text;
      log.scrollTop = log.scrollHeight;
    }
  };
  let last = 0;
  const show = (job, stream) => {
    if (job.state !== page.dataset.state && ["succeeded", "failed", "cancelled"].includes(job.state)) {
      stream.close();
      return location.reload();
    }
    page.dataset.state = job.state;
    $(".state", page).replaceWith(state(job));
    $(".place", page).replaceChildren(place(job));
    $("#cancel").hidden = job.cancelling;
    $("#spent").textContent = job.progress.spent_s === undefined ? "" : `${duration(job.progress.spent_s)} so far`;
    $("#values").replaceChildren(
      ...Object.entries(job.progress.values ?? {}).map(([name, value]) =>
        make("div", {}, make("dt", {}, name.replaceAll("_", " ")), make("dd", {}, name.endsWith("accuracy") ? `${(100 * value).toFixed(1)} %` : Number(value.toPrecision(4)).toString())),
      ),
    );
    if (Date.now() - last > 2000) {
      last = Date.now();
      readLog();
    }
  };
  if (["queued", "running"].includes(page.dataset.state)) listen(page.dataset.live, "job", show);
}

// While a search runs by order; then by its ranking, in which those that learned nothing have none.
const placeOf = (one, order) => (one.place === undefined ? order + 1 : (one.place ?? "none"));

function scatter(trials, cost) {
  const canvas = $("#scatter");
  const style = getComputedStyle(document.documentElement);
  const ink = style.getPropertyValue("--text").trim();
  const points = trials
    .filter((one) => one.score !== null && one[cost] !== null && one[cost] !== undefined)
    .map((one, place) => ({ x: one[cost], y: one.score, name: one.architecture, place: placeOf(one, place) }));
  window.Chart.getChart(canvas)?.destroy();
  return new window.Chart(canvas, {
    type: "scatter",
    data: { datasets: [{ data: points, pointRadius: 5, pointHoverRadius: 8, backgroundColor: style.getPropertyValue("--link").trim() }] },
    options: {
      animation: false,
      maintainAspectRatio: false,
      scales: {
        x: { title: { display: true, text: cost, color: ink }, ticks: { color: ink }, grid: { color: style.getPropertyValue("--line").trim() } },
        y: { title: { display: true, text: "score", color: ink }, ticks: { color: ink }, grid: { color: style.getPropertyValue("--line").trim() } },
      },
      plugins: {
        legend: { display: false },
        tooltip: { callbacks: { label: (item) => [`place ${item.raw.place}: ${item.raw.y.toPrecision(4)}`, ...item.raw.name.split(",")] } },
      },
    },
  });
}

function liveStudy(table) {
  const cost = $("#cost");
  let trials = [];
  let shown = "";
  const draw = () => window.Chart && scatter(trials, cost.value);
  const rows = () =>
    $("tbody", table).replaceChildren(
      ...trials.slice(0, 50).map((one, place) =>
        make(
          "tr",
          {},
          make("td", {}, String(placeOf(one, place))),
          make("th", { scope: "row" }, make("code", {}, ...breakable(one.architecture)), ...(one.error ? [make("p", { class: "bad" }, one.error)] : [])),
          make("td", {}, one.score === null ? "" : one.score.toPrecision(4)),
          make("td", {}, one.accuracy === null || one.accuracy === undefined ? "" : `${(100 * one.accuracy).toFixed(1)} %`),
          make("td", {}, one.parameters ? one.parameters.toLocaleString() : ""),
        ),
      ),
    );
  const look = async () => {
    try {
      const told = await call("GET", `/api/v1/studies/${table.dataset.study}/trials?limit=500`);
      $("#connection").textContent = "";
      const text = JSON.stringify(told);
      if (text !== shown) {
        shown = text;
        trials = told.trials;
        if (told.state !== "running" && table.dataset.state === "running") return location.reload();
        if (told.state === "running") {
          cost.value = "seconds";
          $("#scored").textContent = `${told.total}${table.dataset.planned ? ` of ${table.dataset.planned}` : ""} scored so far.`;
        }
        rows();
        draw();
      }
      if (told.state !== "running") return;
    } catch (error) {
      $("#connection").textContent = "connection lost, trying again";
    }
    setTimeout(look, 1000);
  };
  cost.addEventListener("change", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  look();
}

// Until a study begins, its page shows the job that is to make it.
async function awaitStudy(job) {
  try {
    const told = await call("GET", `/api/v1/jobs/${job}`);
    if (["failed", "cancelled"].includes(told.state)) return (location.href = `/jobs/${job}`);
    if (told.state === "succeeded" || told.progress.total) return location.reload();
    $("#connection").textContent = "";
  } catch (error) {
    $("#connection").textContent = "connection lost, trying again";
  }
  setTimeout(() => awaitStudy(job), 1000);
}

function value(input) {
  const text = input.value.trim();
  switch (input.dataset.kind) {
    case "integer":
    case "number":
      if (!Number.isFinite(Number(text))) throw Object.assign(new Error(`${input.name}: ${text} is no number`), { where: input.name });
      return Number(text);
    case "words":
      return text.split(/\s+/);
    case "settings":
      return Object.fromEntries(text.split(/\n+/).map((line) => (line.match(/^([^=]*)=(.*)$/) ?? [line, line, ""]).slice(1).map((part) => part.trim())));
    default:
      return text;
  }
}

function form(element) {
  const address = element.getAttribute("data-submit"); // .dataset would be the input of that name
  let key = crypto.randomUUID?.() ?? String(Math.random()).slice(2);
  element.addEventListener("input", () => (key = crypto.randomUUID?.() ?? String(Math.random()).slice(2)));
  element.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = $("button[type=submit]", element);
    $("#said").textContent = "asking the server";
    $("#said").className = "";
    for (const input of element.elements) input.removeAttribute("aria-invalid");
    button.disabled = true;
    try {
      const asked = {};
      for (const input of element.elements) {
        if (input.name && input.value.trim() && (input.required || input.value !== input.dataset.default)) asked[input.name] = value(input);
      }
      const job = await call("POST", address, asked, { "Idempotency-Key": key });
      location.href = `/jobs/${job.id}`;
    } catch (error) {
      complain(reason(error));
      const input = element.elements[(error.where ?? error.message.split(/[: ]/)[0]).split(".")[0]];
      if (input?.name) {
        input.setAttribute("aria-invalid", "true");
        input.setAttribute("aria-errormessage", "said");
        const folded = input.closest("details");
        if (folded) folded.open = true;
        input.focus();
      }
    } finally {
      button.disabled = false;
    }
  });
}

function upload(element) {
  const file = $("#upload-file");
  const name = $("#upload-name");
  file.addEventListener("change", () => (name.value ||= file.files[0]?.name.replace(/\.safetensors$/, "") ?? ""));
  element.addEventListener("submit", async (event) => {
    event.preventDefault();
    $("#said").textContent = "sending the file";
    $("#said").className = "";
    try {
      await call("PUT", `/api/v1/sets/${encodeURIComponent(name.value)}`, file.files[0]);
      location.href = `/sets/${name.value}`;
    } catch (error) {
      complain(reason(error));
    }
  });
}

for (const button of document.querySelectorAll("[data-post], [data-delete]")) {
  button.addEventListener("click", async () => {
    if (button.dataset.sure && !confirm(button.dataset.sure)) return;
    try {
      await call(button.dataset.post ? "POST" : "DELETE", button.dataset.post ?? button.dataset.delete);
      if (button.dataset.post) location.reload();
      else location.href = "/";
    } catch (error) {
      complain(reason(error));
    }
  });
}

if ($("#new")) form($("#new"));
else if ($("#job")) liveJob($("#job"));
else if ($("#trials")) window.addEventListener("load", () => liveStudy($("#trials")));
else if ($("#waiting")) awaitStudy($("#waiting").dataset.job);
else if (location.pathname === "/") {
  upload($("#upload"));
  liveOverview();
}

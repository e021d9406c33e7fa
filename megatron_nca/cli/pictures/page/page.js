/* The page: knobs, histogram, tiles, one rule large. What takes long is done by two workers, one for rules and one for the band. */
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const part = (id) => document.getElementById(id);
const choice = fromAddress(location.hash, data);
const shown = { rules: [], tiles: [], frames: 1, playing: false, last: 0, asked: 0, judged: 0, rulesWorker: null, bandWorker: null, timer: 0 };
const visible = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) { target.tile.visible = isIntersecting; if (isIntersecting) drawTile(target.tile); }
}, { rootMargin: "200px" });

function startWorker(answer) {
  const source = ["automaton", "deflate", "judge", "worker"].map((name) => part(`source-${name}`).textContent).join("\n");
  const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" })), worker = new Worker(address);
  URL.revokeObjectURL(address);
  worker.onmessage = (event) => answer(event.data);
  worker.postMessage({ task: "begin", tables: data.tables, stream: data.stream, limits: data.limits });
  return worker;
}

function palette() {
  return data.palettes[choice.config.colors].map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)).concat(255));
}

function paint(canvas, cells) {
  const { grid } = choice.config, context = canvas.getContext("2d"), image = context.createImageData(grid, grid);
  for (let cell = 0; cell < grid * grid; cell++) image.data.set(shown.palette[cells[cell]], 4 * cell);
  context.putImageData(image, 0, 0);
}

function frameOf(rule) {
  const area = choice.config.grid ** 2;
  return rule.cells.subarray(choice.frame * area, (choice.frame + 1) * area);
}

function drawTile(tile) { paint(tile.canvas, frameOf(tile.rule)); }

function named(tag, text, name = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = name;
  return element;
}

function makeTile(rule) {
  const item = document.createElement("li"), button = document.createElement("button"), canvas = document.createElement("canvas");
  canvas.width = canvas.height = choice.config.grid;
  canvas.setAttribute("role", "img");
  const label = `Rule ${rule.number}, ${choice.config.colors} colours, gzip ratio ${rule.ratio.toFixed(3)}`;
  canvas.setAttribute("aria-label", label);
  button.type = "button";
  button.className = "tile";
  button.setAttribute("aria-label", `Open: ${label}`);
  button.addEventListener("click", () => openRule(rule.number));
  button.append(canvas);
  const caption = named("figcaption", ""), figure = document.createElement("figure");
  caption.append(named("span", rule.ratio.toFixed(3), "number"), named("span", `rule ${rule.number}`));
  figure.append(button, caption);
  item.append(figure);
  const tile = { item, canvas, rule, visible: false };
  item.tile = tile;
  visible.observe(item);
  return tile;
}

function inBand(rule) { return rule.ratio > choice.band[0] && rule.ratio < choice.band[1]; }

function addTile(rule) {
  const tile = makeTile(rule), place = shown.tiles.findIndex((other) => other.rule.ratio > rule.ratio);
  part("rules").insertBefore(tile.item, place < 0 ? null : shown.tiles[place].item);
  shown.tiles.splice(place < 0 ? shown.tiles.length : place, 0, tile);
}

function showTiles() {
  visible.disconnect();
  shown.tiles = [];
  part("rules").replaceChildren();
  const rules = shown.rules.filter(inBand).sort((one, other) => one.ratio - other.ratio);
  shown.tiles = rules.map(makeTile);
  part("rules").append(...shown.tiles.map((tile) => tile.item));
  showCount();
}

function showCount() {
  const total = shown.rules.length, inside = shown.tiles.length, waiting = total < data.rules && !part("refused").textContent;
  const share = total ? `about ${((100 * inside) / total).toFixed(1)} % of random rules of ${choice.config.colors} colours lie in this band` : "none yet";
  part("count").textContent = `${inside} of ${total} rules shown; ${share}${waiting ? `; ${data.rules - total} still to come` : ""}.`;
  drawHistogram();
}

function drawHistogram() {
  const counts = Array(Math.round(1 / data.bin)).fill(0), [low, high] = choice.band;
  for (const rule of shown.rules) counts[Math.min(Math.floor(rule.ratio / data.bin), counts.length - 1)]++;
  const most = Math.max(...counts, 1), width = 500 / counts.length;
  const bars = counts.map((count, place) => {
    const middle = (place + 0.5) * data.bin, height = count ? Math.max((80 * count) / most, 1.5) : 0;
    const color = middle > low && middle < high ? "var(--accent)" : "var(--bar)";
    return `<rect x="${place * width + 0.5}" y="${84 - height}" width="${width - 1}" height="${height}" fill="${color}"/>`;
  });
  part("histogram").innerHTML =
    `<rect x="${500 * low}" y="0" width="${500 * (high - low)}" height="84" fill="var(--tint)" opacity="0.45"/>` + bars.join("");
}

function keepAddress() { history.replaceState(null, "", toAddress(choice, data)); }

/* The process changed: everything is made anew. */
function makeRules() {
  const { config } = choice, wrong = refusal(config, data.limits);
  for (const worker of [shown.rulesWorker, shown.bandWorker]) if (worker) worker.terminate();
  shown.rulesWorker = shown.bandWorker = null;
  shown.rules = [];
  part("refused").textContent = wrong ? `No launch takes this process: ${wrong}.` : "";
  if (!wrong) {
    shown.palette = palette();
    shown.frames = data.frames || Math.max(Math.min(data.most_frames, Math.floor(data.budget / (data.rules * config.grid ** 2))), 4);
    choice.frame = Math.min(choice.frame, shown.frames - 1);
    part("frame").max = shown.frames - 1;
    const id = ++shown.asked;
    shown.rulesWorker = startWorker((told) => told.id === id && takeRules(told));
    shown.rulesWorker.postMessage({ task: "rules", id, config, first: data.first, count: data.rules, frames: shown.frames });
  }
  showTiles();
  showFrame();
  judgeBand(wrong);
}

function takeRules({ rules, finished }) {
  shown.rules.push(...rules);
  rules.filter(inBand).forEach(addTile);
  for (const rule of rules) if (rule.number === choice.rule) openRule(rule.number);
  if (finished) { shown.rulesWorker.terminate(); shown.rulesWorker = null; }
  showCount();
}

/* An entry is offered once a launch's own look at the band has passed. */
function judgeBand(wrong) {
  clearTimeout(shown.timer);
  if (shown.bandWorker) shown.bandWorker.terminate();
  shown.bandWorker = null;
  part("entry").textContent = "";
  part("copy-entry").hidden = true;
  part("verdict").textContent = wrong ? "" : "Looking whether a launch would take this band …";
  if (!wrong) shown.timer = setTimeout(askAboutBand, 250);
}

function askAboutBand() {
  const id = ++shown.judged, config = { ...choice.config, gzip: choice.band };
  shown.bandWorker = startWorker((told) => {
    if (told.id !== id) return;
    shown.bandWorker.terminate();
    shown.bandWorker = null;
    const tokens = (config.colors ** config.patch ** 2 + 2).toLocaleString("en");
    part("entry").textContent = told.good ? entryText(config, choice.band, data.defaults) : "";
    part("copy-entry").hidden = !told.good;
    part("verdict").textContent = told.good
      ? `A launch takes it, with a tokenizer of ${tokens} ids or more.`
      : `Not offered: ${told.accepted} of ${told.probed.toLocaleString("en")} random rules lie in this band; a launch asks for one in a hundred.`;
  });
  shown.bandWorker.postMessage({ task: "band", id, config });
}

function chooseBand(low, high) {
  choice.band = [Number(low.toFixed(2)), Number(high.toFixed(2))];
  showBand();
  showTiles();
  judgeBand(part("refused").textContent);
  keepAddress();
}

function showBand() {
  ["low", "high"].forEach((name, at) => {
    part(name).value = choice.band[at];
    part(`${name}-value`).textContent = choice.band[at].toFixed(2);
  });
}

function showKnobs() {
  for (const name of KNOBS) part(name).value = choice.config[name];
  part("colors").setAttribute("aria-valuetext", `${choice.config.colors} colours`);
  part("colors-value").textContent = choice.config.colors;
}

function turn(name, value) {
  choice.config[name] = value === "" ? NaN : Number(value);
  part("colors-value").textContent = choice.config.colors;
  closeRule();
  makeRules();
  keepAddress();
}

function showFrame() {
  if (part("refused").textContent) return;
  for (const tile of shown.tiles) if (tile.visible) drawTile(tile);
  const step = choice.config.burn_in + choice.frame * choice.config.dt;
  part("frame").value = choice.frame;
  part("frame").setAttribute("aria-valuetext", `step ${step}`);
  part("frame-value").textContent = step;
  showRule();
}

function moveTo(frame) {
  choice.frame = (frame + shown.frames) % shown.frames;
  showFrame();
  if (!shown.playing) keepAddress();
}

function play(on) {
  shown.playing = on;
  part("play").textContent = on ? "Pause" : "Play";
  if (on) requestAnimationFrame(tick);
  else keepAddress();
}

function tick(now) {
  if (!shown.playing) return;
  if (now - shown.last >= 1000 / part("speed").value) {
    shown.last = now;
    moveTo(choice.frame + 1);
  }
  requestAnimationFrame(tick);
}

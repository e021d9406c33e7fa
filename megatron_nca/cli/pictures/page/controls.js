/* One rule large, buttons and keys; and the page's beginning. */
"use strict";

function openRule(number) {
  const rule = shown.rules.find((other) => other.number === number);
  if (!rule) return;
  choice.rule = number;
  const canvas = part("large");
  canvas.width = canvas.height = choice.config.grid;
  const label = `Rule ${number}, gzip ratio ${rule.ratio.toFixed(3)}`;
  canvas.setAttribute("aria-label", label);
  part("rule-title").textContent = label;
  part("command").textContent = previewCommand(choice.config, number, data.stream, data.defaults);
  if (!part("rule").open) part("rule").showModal();
  showRule();
  keepAddress();
}

function closeRule() { if (part("rule").open) part("rule").close(); }

/* The rule that is open: its frame, and the frame's tokens between their delimiters. */
function showRule() {
  const rule = part("rule").open && shown.rules.find((other) => other.number === choice.rule);
  if (!rule) return;
  const { config } = choice, cells = frameOf(rule), side = config.grid / config.patch, tokens = patchTokens(config, cells);
  paint(part("large"), cells);
  const opening = config.colors ** config.patch ** 2, width = String(opening + 1).length;
  const rows = Array.from({ length: side }, (_, row) => tokens.slice(row * side, (row + 1) * side));
  const lines = [[opening], ...rows, [opening + 1]].map((row) => row.map((token) => String(token).padStart(width)).join(" "));
  part("tokens").textContent = lines.join("\n");
  part("tokens-title").textContent = `Its ${tokens.length + 2} tokens at step ${config.burn_in + choice.frame * config.dt}`;
}

/* The clipboard's own interface is closed to pages that are read from a file. */
function copy(id, button) {
  const range = document.createRange(), selection = getSelection();
  range.selectNodeContents(part(id));
  selection.removeAllRanges();
  selection.addRange(range);
  button.textContent = document.execCommand("copy") ? "copied" : "not copied";
  selection.removeAllRanges();
  setTimeout(() => { button.textContent = "copy"; }, 1500);
}

function onKey(event) {
  const onControl = ["INPUT", "BUTTON"].includes(event.target.tagName);
  if (onControl || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " ") play(!shown.playing);
  else if (event.key === "ArrowRight") moveTo(choice.frame + 1);
  else if (event.key === "ArrowLeft") moveTo(choice.frame - 1);
  else return;
  event.preventDefault();
}

function addBands() {
  for (const [name, [low, high]] of [...Object.entries(data.bands), ["all", [0, 1]]]) {
    const button = named("button", name === "all" ? "all" : `${name} ${low}–${high}`);
    button.type = "button";
    button.addEventListener("click", () => chooseBand(low, high));
    part("bands").append(button);
  }
}

function listen(id, event, action) { part(id).addEventListener(event, action); }

listen("low", "input", ({ target }) => {
  const low = Math.min(Number(target.value), 0.99);
  chooseBand(low, Math.max(choice.band[1], low + 0.01));
});
listen("high", "input", ({ target }) => {
  const high = Math.max(Number(target.value), 0.01);
  chooseBand(Math.min(choice.band[0], high - 0.01), high);
});
for (const name of KNOBS) {
  [part(name).min, part(name).max] = data.limits.ranges[name];
  listen(name, name === "colors" ? "input" : "change", ({ target }) => turn(name, target.value));
}
listen("reset", "click", () => { choice.config = { ...data.config }; showKnobs(); closeRule(); makeRules(); keepAddress(); });
listen("frame", "input", ({ target }) => { play(false); moveTo(Number(target.value)); });
listen("speed", "input", () => { part("speed-value").textContent = part("speed").value; });
for (const id of ["play", "rule-play"]) listen(id, "click", () => play(!shown.playing));
for (const id of ["back", "rule-back"]) listen(id, "click", () => { play(false); moveTo(choice.frame - 1); });
for (const id of ["forward", "rule-forward"]) listen(id, "click", () => { play(false); moveTo(choice.frame + 1); });
listen("copy-entry", "click", ({ target }) => copy("entry", target));
listen("copy-command", "click", ({ target }) => copy("command", target));
listen("rule-close", "click", closeRule);
listen("rule", "close", () => { choice.rule = null; keepAddress(); });
document.addEventListener("keydown", onKey);

addBands();
showKnobs();
showBand();
part("version").textContent = data.version;
part("speed-value").textContent = part("speed").value;
makeRules();
play(!location.hash.includes("frame=") && !matchMedia("(prefers-reduced-motion: reduce)").matches);

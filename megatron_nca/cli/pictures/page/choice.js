/* What is chosen, and its two written forms: the entry of a data path, and the page's address. */
"use strict";

const KNOBS = ["grid", "colors", "patch", "temperature", "identity_bias", "burn_in", "dt"];

/* Settings that are not the defaults, as an entry has them. */
function settings(config, defaults) {
  return KNOBS.filter((name) => config[name] !== defaults[name])
    .map((name) => `${name}=${["temperature", "identity_bias"].includes(name) ? written(config[name]) : config[name]}`);
}

function entryText(config, [low, high], defaults) {
  return "nca:" + [...settings(config, defaults), `gzip=${low.toFixed(2)}-${high.toFixed(2)}`].join(",");
}

/* The command that draws one rule of the page, by its number. */
function previewCommand(config, number, stream, defaults) {
  const words = ["megatron-nca preview", `'nca:${[...settings(config, defaults), "gzip=none"].join(",")}'`, `--first ${number} --rules 1`];
  if (stream.seed !== defaults.seed) words.push(`--seed ${stream.seed}`);
  if (stream.split !== defaults.split) words.push(`--split ${stream.split}`);
  return words.join(" ");
}

/* The part of the address behind #; what is as the page was made stands not in it. */
function toAddress(choice, given) {
  const pairs = KNOBS.filter((name) => choice.config[name] !== given.config[name]).map((name) => [name, choice.config[name]]);
  pairs.push(["band", choice.band.map((bound) => bound.toFixed(2)).join("-")], ["frame", choice.frame]);
  if (choice.rule !== null) pairs.push(["rule", choice.rule]);
  return "#" + new URLSearchParams(pairs);
}

function fromAddress(address, given) {
  const told = new URLSearchParams(address.slice(1)), choice = { config: { ...given.config }, band: given.band, frame: 0, rule: null };
  for (const name of KNOBS) if (told.has(name)) choice.config[name] = Number(told.get(name));
  const band = /^([01]\.\d\d)-([01]\.\d\d)$/.exec(told.get("band") || "");
  if (band && Number(band[1]) < Number(band[2]) && Number(band[2]) <= 1) choice.band = [Number(band[1]), Number(band[2])];
  for (const name of ["frame", "rule"]) if (/^\d{1,9}$/.test(told.get(name) || "")) choice[name] = Number(told.get(name));
  return choice;
}

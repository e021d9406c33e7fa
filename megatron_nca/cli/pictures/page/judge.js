/* Would a launch take an entry? Its own checks: NCAConfig, data/entry.py and data/band.py, with the numbers that Python gives. */
"use strict";

function probeBytes(config) { return 4 * PROBE_FRAMES * (config.grid / config.patch) ** 2; }

function ratio(automaton, index) {
  const tokens = patchTokens(automaton.config, automaton.probe(index, 0));
  return gzipSize(new Uint8Array(Int32Array.from(tokens).buffer)) / (4 * tokens.length);
}

function stepCost(config, cost) {
  const noise = config.temperature > cost.noisy ? cost.noise : 0;
  return config.grid ** 2 * (cost.cell + (cost.colour + noise) * config.colors);
}

function probeCost(config, cost) {
  return cost.rule + stepCost(config, cost) * (config.burn_in + (PROBE_FRAMES - 1) * config.dt) + cost.byte * probeBytes(config);
}

/* What is wrong with the process itself, or null. */
function refusal(config, limits) {
  const names = { grid: "grid", colors: "colours", patch: "patch", burn_in: "burn-in", dt: "dt" };
  for (const [name, [least, most]] of Object.entries(limits.ranges)) {
    const value = config[name], whole = name in names;
    if (!Number.isFinite(value) || (whole && !Number.isInteger(value)) || value < least || value > most) {
      return `${names[name] || name.replace("_", " ")} must be ${whole ? "a whole number" : "a number"} from ${least} to ${most}`;
    }
  }
  if (config.grid % config.patch) return `a patch of ${config.patch} does not divide a grid of ${config.grid}`;
  const tokens = config.colors ** config.patch ** 2;
  if (tokens + 2 > limits.vocabulary) return `${config.colors} colours make ${tokens.toExponential(1)} patch tokens, more than an int32 holds`;
  const frame = (config.grid / config.patch) ** 2 + 2;
  if (2 * frame > limits.trajectory) return `two frames are ${2 * frame} tokens, more than a trajectory's ${limits.trajectory}`;
  const cost = probeCost(config, limits.cost);
  if (cost > limits.most) return `a candidate rule takes about ${(cost / 1e9).toPrecision(2)} s of a core; at most ${limits.most / 1e9} s are taken`;
  return null;
}

/* Do enough random rules lie in the config's band? The candidates, and how many, are those that a launch looks at. */
function bandHolds(automaton, limits) {
  const [low, high] = automaton.config.gzip, { least, clear, work, atOnce, atLeast } = limits.band;
  const most = Math.max(Math.min(Math.floor(work / probeCost(automaton.config, limits.cost)), Math.floor(16 / least)), atLeast);
  let probed = 0, accepted = 0;
  while (probed < most) {
    for (const until = Math.min(probed + atOnce, most); probed < until; probed++) {
      const found = ratio(automaton, probed);
      accepted += low < found && found < high;
    }
    if (accepted >= clear && accepted >= 2 * least * probed) return { good: true, accepted, probed };
  }
  return { good: accepted >= least * probed, accepted, probed };
}

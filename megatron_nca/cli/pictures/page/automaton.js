/* The process in JavaScript: the same integers as automaton/reference.py, from the same counters.

   Philox's products of 32-bit words are split into halves; whatever is not below 2**53 is never formed. */
"use strict";

const PURPOSE = { weights: 0, probe: [1, 2, 3], trajectory: [4, 5, 6] };
const PROBE_FRAMES = 10, FEATURES = 4, HIDDEN = 16, NEIGHBOURS = 9;

function rotated(word, by) { return (word >>> by) | (word << (32 - by)); }

/* SHA-256 of bytes, as eight unsigned words (FIPS 180-4); crypto.subtle is closed to pages that are read from a file. */
function sha256(bytes) {
  const primes = [];
  for (let number = 2; primes.length < 64; number++) if (primes.every((prime) => number % prime)) primes.push(number);
  const fraction = (value) => Math.floor((value - Math.floor(value)) * 2 ** 32) | 0;
  const constants = primes.map((prime) => fraction(Math.cbrt(prime)));
  const state = primes.slice(0, 8).map((prime) => fraction(Math.sqrt(prime)));
  const padded = new Uint8Array(((bytes.length + 8) >> 6 << 6) + 64), view = new DataView(padded.buffer), schedule = new Int32Array(64);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  view.setUint32(padded.length - 8, Math.floor(bytes.length / 2 ** 29));
  view.setUint32(padded.length - 4, bytes.length << 3);
  for (let block = 0; block < padded.length; block += 64) {
    for (let at = 0; at < 16; at++) schedule[at] = view.getInt32(block + 4 * at);
    for (let at = 16; at < 64; at++) {
      const early = schedule[at - 15], late = schedule[at - 2];
      const first = rotated(early, 7) ^ rotated(early, 18) ^ (early >>> 3);
      const second = rotated(late, 17) ^ rotated(late, 19) ^ (late >>> 10);
      schedule[at] = (schedule[at - 16] + first + schedule[at - 7] + second) | 0;
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let at = 0; at < 64; at++) {
      const sum = rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25);
      const one = (h + sum + ((e & f) ^ (~e & g)) + constants[at] + schedule[at]) | 0;
      const two = ((rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) | 0, c, b, a, (one + two) | 0];
    }
    [a, b, c, d, e, f, g, h].forEach((word, at) => { state[at] = (state[at] + word) | 0; });
  }
  return state.map((word) => word >>> 0);
}

function reversedBytes(word) {
  return (((word & 0xff) << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24)) >>> 0;
}

/* A number as Python writes it. */
function written(value) {
  if (Number.isInteger(value)) return `${value}.0`;
  if (Math.abs(value) >= 1e-4) return String(value);
  return value.toExponential().replace(/e([+-])(\d)$/, "e$10$2");
}

/* The canonical form of a process, by which its random stream is keyed: NCAConfig.to_uri. */
function canonical(config) {
  const band = config.gzip ? config.gzip.map(written).join("-") : "none";
  return `nca:grid=${config.grid},colors=${config.colors},patch=${config.patch},temperature=${written(config.temperature)},` +
    `identity_bias=${written(config.identity_bias)},burn_in=${config.burn_in},dt=${config.dt},gzip=${band}`;
}

function streamKey(config, stream) {
  const text = `${stream.version}|${canonical(config)}|rules=${stream.rules}|${stream.seed}|${stream.split}|0`;
  return sha256(new TextEncoder().encode(text)).slice(0, 2).map(reversedBytes);
}

function highProduct(one, other) {
  const a = one >>> 16, b = one & 0xffff, c = other >>> 16, d = other & 0xffff;
  const middle = a * d + Math.floor((b * d) / 65536), rest = b * c + (middle % 65536);
  return (a * c + Math.floor(middle / 65536) + Math.floor(rest / 65536)) >>> 0;
}

/* Philox4x32-10 of one counter, into ``out`` at ``at``. */
function philox(key, c0, c1, c2, c3, out, at) {
  let k0 = key[0], k1 = key[1];
  for (let round = 0; round < 10; round++) {
    const high0 = highProduct(0xd2511f53, c0), low0 = Math.imul(0xd2511f53, c0) >>> 0;
    const high1 = highProduct(0xcd9e8d57, c2), low1 = Math.imul(0xcd9e8d57, c2) >>> 0;
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  out[at] = c0; out[at + 1] = c1; out[at + 2] = c2; out[at + 3] = c3;
}

function words(key, purpose, first, blocks, index, attempt, step) {
  const out = new Uint32Array(4 * blocks), high = ((attempt << 16) | Math.floor(index / 2 ** 32)) >>> 0;
  for (let block = 0; block < blocks; block++) {
    philox(key, step, ((purpose << 24) | (first + block)) >>> 0, index >>> 0, high, out, 4 * block);
  }
  return out;
}

/* 16-bit numbers: the low half of each word, then its high half. */
function draws(key, purpose, count, index, attempt, step) {
  const drawn = words(key, purpose, 0, Math.ceil(count / 8), index, attempt, step), out = new Uint16Array(count);
  for (let at = 0; at < count; at++) out[at] = at & 1 ? drawn[at >> 1] >>> 16 : drawn[at >> 1] & 0xffff;
  return out;
}

/* Rounds half to even, as numpy's rint. */
function rint(value) {
  const floor = Math.floor(value), part = value - floor;
  return part > 0.5 || (part === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}

/* Int32Array of 65,536 from its first value and the base64 of its differences, seven bits a byte, the lowest first. */
function unpackedTable({ first, steps }) {
  const bytes = Uint8Array.from(atob(steps), (letter) => letter.charCodeAt(0)), table = new Int32Array(65536);
  let at = 0, value = first;
  table[0] = first;
  for (let place = 1; place < table.length; place++) {
    let scale = 1;
    do { value += (bytes[at] & 127) * scale; scale *= 128; } while (bytes[at++] & 128);
    table[place] = value;
  }
  return table;
}

function logitScale(colors) { return 1024 * Math.sqrt(FEATURES * HIDDEN) * Math.sqrt(NEIGHBOURS * (colors + 2)); }

class Automaton {
  /* config: the process. stream: {version, seed, split, rules}. tables: {weights, odds, gumbel}. */
  constructor(config, stream, tables) {
    Object.assign(this, { config, tables, key: streamKey(config, stream) });
    const scale = logitScale(config.colors), unit = (config.temperature * scale) / 65536;
    this.bias = rint(config.identity_bias * scale);
    this.noise = config.temperature ? tables.gumbel.map((value) => rint(value * unit)) : null;
    this.spread = this.noise ? this.noise[65535] - this.noise[0] : 0;
    this.near = neighbours(config.grid);
  }

  rule(index, attempt) {
    const { colors } = this.config, kernels = NEIGHBOURS * (colors + 2) * FEATURES, mixing = kernels + FEATURES * HIDDEN;
    const drawn = draws(this.key, PURPOSE.weights, mixing + HIDDEN * colors, index, attempt, 0);
    const weight = (at) => this.tables.weights[drawn[at]];
    const table = new Int32Array(NEIGHBOURS * colors * HIDDEN), readout = new Int32Array(HIDDEN * colors);
    for (let place = 0; place < NEIGHBOURS; place++) {
      for (let color = 0; color < colors; color++) {
        const kernel = [0, 1, 2, 3].map((feature) => {
          const of = (channel) => weight((place * (colors + 2) + channel) * FEATURES + feature);
          return of(color + 1) + (color === colors - 1 ? of(0) : 0) + (color === 0 ? of(colors + 1) : 0);
        });
        for (let unit = 0; unit < HIDDEN; unit++) {
          let sum = 0;
          for (let feature = 0; feature < FEATURES; feature++) sum += kernel[feature] * weight(kernels + feature * HIDDEN + unit);
          table[(place * colors + color) * HIDDEN + unit] = (sum + (1 << 18)) >> 19;
        }
      }
    }
    for (let at = 0; at < readout.length; at++) readout[at] = (weight(mixing + at) + 64) >> 7;
    return { table, readout };
  }

  start(index, attempt, purposes) {
    const { colors, grid } = this.config, area = grid * grid, state = new Uint8Array(area), bounds = new Float64Array(colors);
    const odds = draws(this.key, purposes[0], colors, index, attempt, 0);
    let total = 0;
    for (let color = 0; color < colors; color++) bounds[color] = total += this.tables.odds[odds[color]];
    const drawn = words(this.key, purposes[1], 0, Math.ceil(area / 4), index, attempt, 0);
    for (let cell = 0; cell < area; cell++) {
      const target = highProduct(drawn[cell], total);
      while (state[cell] < colors - 1 && target >= bounds[state[cell]]) state[cell]++;
    }
    return state;
  }

  step(rule, state, purpose, index, attempt, step) {
    const { colors } = this.config, { table, readout } = rule, next = new Uint8Array(state.length);
    const hidden = new Int32Array(HIDDEN), scores = new Int32Array(colors), blocks = Math.ceil(colors / 8);
    for (let cell = 0; cell < state.length; cell++) {
      hidden.fill(0);
      for (let place = 0; place < NEIGHBOURS; place++) {
        const row = (place * colors + state[this.near[cell * NEIGHBOURS + place]]) * HIDDEN;
        for (let unit = 0; unit < HIDDEN; unit++) hidden[unit] += table[row + unit];
      }
      scores.fill(0);
      scores[state[cell]] = this.bias;
      for (let unit = 0; unit < HIDDEN; unit++) {
        if (hidden[unit] <= 0) continue;
        for (let color = 0; color < colors; color++) scores[color] += hidden[unit] * readout[unit * colors + color];
      }
      let best = 0, second = -Infinity;
      for (let color = 1; color < colors; color++) {
        if (scores[color] > scores[best]) { second = scores[best]; best = color; } else second = Math.max(second, scores[color]);
      }
      // Noise is drawn only where it could change which colour is the greatest.
      if (this.noise && scores[best] - second <= this.spread) {
        const drawn = words(this.key, purpose, cell * blocks, blocks, index, attempt, step);
        best = 0;
        for (let color = 0; color < colors; color++) {
          scores[color] += this.noise[color & 1 ? drawn[color >> 1] >>> 16 : drawn[color >> 1] & 0xffff];
          if (scores[color] > scores[best]) best = color;
        }
      }
      next[cell] = best;
    }
    return next;
  }

  /* Frames of one trajectory, Uint8Array (frames * grid * grid). */
  rollout(index, attempt, frames, purposes, ruleAttempt = attempt) {
    const { burn_in, dt } = this.config, rule = this.rule(index, ruleAttempt);
    let state = this.start(index, attempt, purposes), step = 0;
    const out = new Uint8Array(frames * state.length);
    for (let frame = 0; frame < frames; frame++) {
      for (; step < burn_in + frame * dt; step++) state = this.step(rule, state, purposes[2], index, attempt, step);
      out.set(state, frame * state.length);
    }
    return out;
  }

  probe(index, attempt) { return this.rollout(index, attempt, PROBE_FRAMES, PURPOSE.probe); }

  /* Of the rule whose first candidate is taken, as without a band. */
  grids(index, frames) { return this.rollout(index, 0, frames, PURPOSE.trajectory); }
}

function neighbours(grid) {
  const near = new Uint32Array(grid * grid * NEIGHBOURS);
  for (let cell = 0; cell < grid * grid; cell++) {
    for (let place = 0; place < NEIGHBOURS; place++) {
      const row = Math.floor(cell / grid) + Math.floor(place / 3) - 1, column = (cell % grid) + (place % 3) - 1;
      near[cell * NEIGHBOURS + place] = ((row + grid) % grid) * grid + ((column + grid) % grid);
    }
  }
  return near;
}

/* Patch tokens of frames, delimiters left out; a patch's token is sum_j cell[j] * colors**j. */
function patchTokens(config, cells) {
  const { grid, patch, colors } = config, side = grid / patch, out = [];
  for (let frame = 0; frame < cells.length; frame += grid * grid) {
    for (let place = 0; place < side * side; place++) {
      let token = 0, unit = 1;
      for (let at = 0; at < patch * patch; at++, unit *= colors) {
        const row = Math.floor(place / side) * patch + Math.floor(at / patch), column = (place % side) * patch + (at % patch);
        token += cells[frame + row * grid + column] * unit;
      }
      out.push(token);
    }
  }
  return out;
}

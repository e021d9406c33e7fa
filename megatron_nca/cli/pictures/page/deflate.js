/* The size of gzip's stream at level 9, as automaton/deflate.py and huffman.py have it, along chains of equal hashes of three bytes. */
"use strict";

const SHORTEST = 3, LONGEST = 258, WINDOW = 1 << 15, LOOKAHEAD = LONGEST + SHORTEST + 1, FURTHEST = WINDOW - LOOKAHEAD, FAR = 4096;
const BLOCK_SYMBOLS = 16383, END_OF_BLOCK = 256;
const LITERALS = 286, DISTANCES = 30, RUNS = 19, NODES = 2 * LITERALS + 1;
const LENGTH_EXTRA = [...Array(29).keys()].map((at) => (at < 8 || at === 28 ? 0 : (at - 4) >> 2));
const DISTANCE_EXTRA = [...Array(30).keys()].map((at) => (at < 4 ? 0 : (at >> 1) - 1));
const RUN_EXTRA = [...Array(16).fill(0), 2, 3, 7];
const RUN_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const LENGTH_CLASS = classes(LENGTH_EXTRA, LONGEST - SHORTEST + 1), DISTANCE_CLASS = classes(DISTANCE_EXTRA, 1 << 15);
LENGTH_CLASS[LONGEST - SHORTEST] = 28;

function classes(extra, count) {
  return Uint8Array.from(extra.flatMap((bits, at) => Array(2 ** bits).fill(at)).slice(0, count));
}

function literalExtra(symbol) { return symbol > END_OF_BLOCK ? LENGTH_EXTRA[symbol - END_OF_BLOCK - 1] : 0; }

function fixedBits(symbol) { return symbol < 144 ? 8 : symbol < 256 ? 9 : symbol < 280 ? 7 : 8; }

function gzipSize(data) {
  const heads = new Int32Array(1 << 15).fill(-1), earlier = new Int32Array(data.length);
  const literals = new Int32Array(LITERALS), distances = new Int32Array(DISTANCES);
  const insert = (at) => {
    if (at + SHORTEST > data.length) return -1;
    const hash = ((data[at] << 10) ^ (data[at + 1] << 5) ^ data[at + 2]) & 0x7fff, head = heads[hash];
    earlier[at] = head;
    heads[hash] = at;
    return head;
  };
  let at = 0, length = SHORTEST - 1, start = 0, pending = false, base = 0, block = 0, symbols = 0, bits = 0;
  const uncoded = (to) => (block >= base ? to - block : null);
  while (at < data.length) {
    if (at - base >= WINDOW + FURTHEST && Math.min(data.length, base + 2 * WINDOW) - at < LOOKAHEAD) base += WINDOW;
    const before = length, startBefore = start, reach = Math.min(LONGEST, data.length - at), head = insert(at);
    length = SHORTEST - 1;
    // The window's first byte is never matched: its number stands for the end of a chain.
    if (head > base && before < reach && at - head <= FURTHEST) {
      const floor = Math.max(base, at - FURTHEST);
      ({ length, start } = longestMatch(data, at, head, floor, before, start, reach, earlier));
      if (length === SHORTEST && at - start > FAR) length = SHORTEST - 1;
    }
    if (before >= SHORTEST && length <= before) {
      literals[END_OF_BLOCK + 1 + LENGTH_CLASS[before - SHORTEST]]++;
      distances[DISTANCE_CLASS[at - 2 - startBefore]]++;
      symbols++;
      const end = at + before - 1;
      for (let place = at + 1; place < end; place++) insert(place);
      [at, pending, length] = [end, false, SHORTEST - 1];
      if (symbols === BLOCK_SYMBOLS) [bits, block, symbols] = [endBlock(bits, literals, distances, uncoded(at)), at, 0];
    } else {
      if (pending) { literals[data[at - 1]]++; symbols++; }
      const blockTo = at;
      pending = true;
      at++;
      if (symbols === BLOCK_SYMBOLS) [bits, block, symbols] = [endBlock(bits, literals, distances, uncoded(blockTo)), blockTo, 0];
    }
  }
  if (pending) literals[data[data.length - 1]]++;
  bits = endBlock(bits, literals, distances, uncoded(data.length));
  return ((bits + 7) >> 3) + 18;
}

function longestMatch(data, at, head, floor, best, start, reach, earlier) {
  let candidate = head, links = best >= 32 ? 1024 : 4096;
  for (; links > 0 && (candidate > floor || candidate === head); links--, candidate = earlier[candidate]) {
    if (data[candidate + best] !== data[at + best] || data[candidate] !== data[at]) continue;
    let length = 0;
    while (length < reach && data[candidate + length] === data[at + length]) length++;
    if (length > best) {
      [best, start] = [length, candidate];
      if (length === reach) break;
    }
  }
  return { length: best, start };
}

/* Bits after a block, in the form that zlib chooses; the counts begin anew. */
function endBlock(bits, literals, distances, stored) {
  literals[END_OF_BLOCK]++;
  let fixed = 0;
  literals.forEach((count, symbol) => { fixed += count * (fixedBits(symbol) + literalExtra(symbol)); });
  distances.forEach((count, symbol) => { fixed += count * (5 + DISTANCE_EXTRA[symbol]); });
  let own = ownCodeBits(literals, distances), bytes = (own + 10) >> 3;
  if ((fixed + 10) >> 3 <= bytes) [own, bytes] = [fixed, (fixed + 10) >> 3];
  literals.fill(0);
  distances.fill(0);
  return stored !== null && stored + 4 <= bytes ? ((bits + 10) >> 3 << 3) + 32 + 8 * stored : bits + 3 + own;
}

function ownCodeBits(literals, distances) {
  const literal = codeLengths(literals, 15), distance = codeLengths(distances, 15), runs = new Int32Array(RUNS);
  countRuns(literal, runs);
  countRuns(distance, runs);
  const run = codeLengths(runs, 7);
  let last = RUNS - 1;
  while (last >= 3 && run.lengths[RUN_ORDER[last]] === 0) last--;
  let bits = 3 * (last + 1) + 14;
  runs.forEach((count, symbol) => { bits += count * (run.lengths[symbol] + RUN_EXTRA[symbol]); });
  literals.forEach((count, symbol) => { bits += count * (literal.lengths[symbol] + literalExtra(symbol)); });
  distances.forEach((count, symbol) => { bits += count * (distance.lengths[symbol] + DISTANCE_EXTRA[symbol]); });
  return bits;
}

/* zlib's trees: a heap in which of two equal frequencies the shallower subtree comes first. */
function codeLengths(counts, longest) {
  const elements = counts.length, heap = new Int32Array(NODES), lengths = new Int32Array(elements);
  const keys = new Int32Array(NODES), parent = new Int32Array(NODES);
  let size = 0, last = -1;
  for (let symbol = 0; symbol < elements; symbol++) {
    if (!counts[symbol]) continue;
    heap[++size] = last = symbol;
    keys[symbol] = counts[symbol] << 8;
  }
  // A code has two symbols at least, used or not.
  while (size < 2) {
    const forced = last < 2 ? ++last : 0;
    heap[++size] = forced;
    keys[forced] = 256;
  }
  for (let place = size >> 1; place > 0; place--) sift(heap, size, keys, place);
  let top = NODES, node = elements;
  while (size >= 2) {
    const one = heap[1];
    heap[1] = heap[size--];
    sift(heap, size, keys, 1);
    const other = heap[1];
    top -= 2;
    [heap[top + 1], heap[top]] = [one, other];
    keys[node] = (((keys[one] >> 8) + (keys[other] >> 8)) << 8) | (Math.max(keys[one] & 255, keys[other] & 255) + 1);
    parent[one] = parent[other] = node;
    heap[1] = node++;
    sift(heap, size, keys, 1);
  }
  heap[--top] = heap[1];
  limitLengths(heap, top, parent, last, longest, lengths);
  return { lengths, last };
}

function sift(heap, size, keys, place) {
  const node = heap[place];
  for (let below = place << 1; below <= size; below <<= 1) {
    if (below < size && keys[heap[below + 1]] <= keys[heap[below]]) below++;
    if (keys[node] <= keys[heap[below]]) break;
    heap[place] = heap[below];
    place = below;
  }
  heap[place] = node;
}

/* Depths become lengths; where some exceed the limit, others grow until the code fits. */
function limitLengths(heap, top, parent, last, longest, lengths) {
  const depth = new Int32Array(NODES), ofLength = new Int32Array(longest + 1);
  let overflow = 0;
  for (let place = top + 1; place < NODES; place++) {
    const node = heap[place];
    let bits = depth[parent[node]] + 1;
    if (bits > longest) { bits = longest; overflow++; }
    depth[node] = bits;
    if (node <= last) { ofLength[bits]++; lengths[node] = bits; }
  }
  if (!overflow) return;
  for (; overflow > 0; overflow -= 2) {
    let bits = longest - 1;
    while (ofLength[bits] === 0) bits--;
    ofLength[bits]--;
    ofLength[bits + 1] += 2;
    ofLength[longest]--;
  }
  let place = NODES;
  for (let bits = longest; bits > 0; bits--) {
    for (let remaining = ofLength[bits]; remaining;) {
      if (heap[--place] <= last) { lengths[heap[place]] = bits; remaining--; }
    }
  }
}

/* Counts the symbols that describe code lengths. */
function countRuns({ lengths, last }, runs) {
  let previous = -1, following = lengths[0], count = 0, [most, least] = following ? [7, 4] : [138, 3];
  for (let symbol = 0; symbol <= last; symbol++) {
    const length = following;
    following = symbol < last ? lengths[symbol + 1] : -1;
    count++;
    if (count < most && length === following) continue;
    if (count < least) runs[length] += count;
    else if (length) {
      if (length !== previous) runs[length]++;
      runs[16]++;
    } else runs[count <= 10 ? 17 : 18]++;
    [count, previous] = [0, length];
    [most, least] = following === 0 ? [138, 3] : length === following ? [6, 3] : [7, 4];
  }
}

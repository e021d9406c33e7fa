/* What takes long, beside the page: ratios of rules, their frames, and whether a band holds enough of them.

   Asked {task, id, ...} it answers {task, id, ...} piece by piece; the page starts a new worker to break off. */
"use strict";

const AT_ONCE = 16;
let tables = null, stream = null, limits = null;

const tasks = {
  begin(asked) {
    tables = Object.fromEntries(Object.entries(asked.tables).map(([name, packed]) => [name, unpackedTable(packed)]));
    ({ stream, limits } = asked);
  },

  /* Ratio and frames of rules first, first + 1, ... of a process without a band. */
  rules({ config, first, count, frames }, answer) {
    const automaton = new Automaton({ ...config, gzip: null }, stream, tables);
    for (let done = 0; done < count; done += AT_ONCE) {
      const rules = [];
      for (let number = first + done; number < first + Math.min(done + AT_ONCE, count); number++) {
        rules.push({ number, ratio: ratio(automaton, number), cells: automaton.grids(number, frames) });
      }
      answer({ rules });
    }
    answer({ rules: [], finished: true });
  },

  band({ config }, answer) {
    answer(bandHolds(new Automaton(config, { ...stream, seed: limits.band.seed, split: "train", rules: "None" }, tables), limits));
  },
};

onmessage = ({ data }) => tasks[data.task](data, (told) => postMessage({ task: data.task, id: data.id, ...told }));

/** `dsd data`: what a data set holds, as counts and as pictures. */
import { basename, resolve } from 'node:path';
import { DATA_NAMES, openData } from '../data/open.js';
import { contactSheet, writePng } from '../data/picture.js';
import { summarize } from '../data/summary.js';
import { defineCommand } from './command.js';
import { checkPng, freePath, OVERWRITE, print, printJson, RESULT } from './output.js';
import { openProgress } from './progress.js';
import { count, counted, skipped, table } from './text.js';

/** Classes that have a line in the table; the rest is counted, and --json has all. */
const MOST_ROWS = 60;

export const data = defineCommand({
  name: 'data',
  about:
    'Shows what training would see of a data set: pictures by class, split into training and held-out ones, and a contact sheet of examples at the size of training.',
  operands: { names: 'DATA', min: 1, max: 1 },
  flags: {
    size: { kind: 'whole', value: 'N', min: 8, max: 1024, about: 'pixels a side, 32 by default' },
    broken: {
      kind: 'choice',
      of: ['error', 'skip'],
      about: 'a picture that cannot be read stops (default), or another of its class takes its place',
    },
    out: { kind: 'text', value: 'FILE.png', about: 'the contact sheet; by default data-NAME.png' },
    overwrite: OVERWRITE,
    ...RESULT,
  },
  sections: async () => [
    {
      heading: 'Data',
      lines: [
        `  ${DATA_NAMES.join(', ')}`,
        '  a folder with a sub-folder for each class, with or without train/ and val/ or test/ above them',
        '  a folder with IDX files, as MNIST has them',
      ],
    },
  ],
  examples: [
    ['dsd data openmoji', ''],
    ['dsd data ~/pictures --size 64 --out sheet.png', 'your own pictures as a 64 px model would see them'],
  ],
  run: async (flags, [spec = '']) => {
    const name = basename(resolve(spec)).replaceAll(/[^\p{L}\p{N}._-]+/gu, '_');
    const out = flags.out ?? freePath(`data-${name}`, '.png');
    checkPng(out, flags.overwrite);
    const progress = openProgress(flags);
    progress.update(`opening ${spec}`);
    const set = await openData(spec, {
      size: flags.size ?? 32,
      ...(flags.broken ? { broken: flags.broken } : {}),
      onBroken: (broken) => progress.note(skipped(broken)),
      onProgress: (done, of) => progress.update(`reading pictures: ${count(done)} of ${count(of)}`),
    });
    const summary = summarize(set);
    await writePng(out, await contactSheet(set, { title: basename(resolve(spec)) }));
    progress.clear();
    if (flags.json) {
      printJson({ data: spec, ...summary, contactSheet: out });
      return;
    }
    const rows = summary.classes.slice(0, MOST_ROWS).map((row, i) => [String(i), row.name, count(row.train), count(row.heldOut)]);
    print(...table([['', 'class', 'training', 'held out'], ...rows, ['', 'all', count(summary.train), count(summary.heldOut)]], [0, 2, 3]));
    if (summary.classes.length > MOST_ROWS)
      print(`and ${counted(summary.classes.length - MOST_ROWS, 'more class', 'more classes')}, counted in 'all'; --json lists them`);
    print(
      '',
      `${summary.size} x ${summary.size} pixels, ${summary.channels === 1 ? 'grey' : 'colour'}; contact sheet: ${out}`,
      ...(summary.credit ? [summary.credit] : []),
    );
  },
});

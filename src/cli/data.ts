/** `dsd data`: what a data set holds, as counts and as pictures. */
import { basename, resolve } from 'node:path';
import { FailureError } from '../core/errors.js';
import { type Checked, checkPictures } from '../data/check.js';
import { type Broken, mostSkipped } from '../data/folder.js';
import { DATA_NAMES, openData } from '../data/open.js';
import { contactSheet, writePng } from '../data/picture.js';
import { type Summary, summarize } from '../data/summary.js';
import { advised } from './broken.js';
import { defineCommand } from './command.js';
import { checkPng, freePath, OVERWRITE, print, printJson, RESULT } from './output.js';
import { openProgress } from './progress.js';
import { count, counted, skipped, table } from './text.js';

/** Classes that have a line in the table; the rest is counted, and --json has all. */
const MOST_ROWS = 60;
/** Broken pictures that are named; --json has all. */
const MOST_BROKEN = 20;

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
    check: {
      kind: 'switch',
      about:
        'decode every picture and list the broken ones; exit 1 if there are any, with --broken skip only if there are too many. Without it only the pictures on the sheet are decoded',
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
    ['dsd data ~/pictures --check', 'which of them are broken, before training finds out'],
  ],
  run: async (flags, [spec = '']) => {
    const name = basename(resolve(spec)).replaceAll(/[^\p{L}\p{N}._-]+/gu, '_');
    const out = flags.out ?? freePath(`data-${name}`, '.png');
    checkPng(out, flags.overwrite);
    const progress = openProgress(flags);
    progress.update(`opening ${spec}`);
    try {
      const set = await openData(spec, {
        size: flags.size ?? 32,
        ...(flags.broken ? { broken: flags.broken } : {}),
        // Checked, all are listed below.
        ...(flags.check ? {} : { onBroken: (broken: Broken) => progress.note(skipped(broken)) }),
        onProgress: (done, of) => progress.update(`reading pictures: ${count(done)} of ${count(of)}`),
      });
      const checked = flags.check
        ? await checkPictures(set, {
            onProgress: (done, of, broken) =>
              progress.update(`decoding pictures: ${count(done)} of ${count(of)}`, ...(broken > 0 ? [`${count(broken)} broken`] : [])),
          })
        : undefined;
      // A sheet of pictures that training would stop at stops too.
      const sheet = checked?.refusal ? undefined : out;
      if (sheet !== undefined) await writePng(sheet, await contactSheet(set, { title: basename(resolve(spec)) }));
      progress.clear();
      const summary = summarize(set);
      if (flags.json) printJson({ data: spec, ...summary, ...tellChecked(checked), contactSheet: sheet ?? null });
      else show(summary, checked, sheet);
      if (checked?.refusal) throw flags.broken === 'skip' ? checked.refusal : new FailureError(remedy(checked, summary));
    } catch (error) {
      progress.clear();
      throw advised(error, spec, 'leave broken ones out: --broken skip. With --check all of them are listed');
    }
  },
});

const tellChecked = (checked: Checked | undefined): object => (checked ? { checked: checked.pictures, broken: checked.broken } : {});

/** What to do about pictures that 'error' stops at; 'skip' takes only so many. */
function remedy({ pictures, broken }: Checked, summary: Summary): string {
  const few = (['train', 'heldOut'] as const).every(
    (part) => broken.filter((one) => one.part === part).length <= mostSkipped(summary[part]),
  );
  const it = broken.length === 1 ? 'it' : 'them';
  return `${count(broken.length)} of ${counted(pictures, 'picture')} cannot be used. Mend or remove ${it}${few ? `, or have training skip ${it}: --set data.broken=skip` : `; they are too many for --set data.broken=skip`}`;
}

function show(summary: Summary, checked: Checked | undefined, sheet: string | undefined): void {
  const rows = summary.classes.slice(0, MOST_ROWS).map((row, i) => [String(i), row.name, count(row.train), count(row.heldOut)]);
  print(...table([['', 'class', 'training', 'held out'], ...rows, ['', 'all', count(summary.train), count(summary.heldOut)]], [0, 2, 3]));
  if (summary.classes.length > MOST_ROWS)
    print(`and ${counted(summary.classes.length - MOST_ROWS, 'more class', 'more classes')}, counted in 'all'; --json lists them`);
  print(
    '',
    `${summary.size} x ${summary.size} pixels, ${summary.channels === 1 ? 'grey' : 'colour'}${sheet === undefined ? '' : `; contact sheet: ${sheet}`}`,
    ...(summary.credit ? [summary.credit] : []),
  );
  if (!checked) return;
  const { pictures, broken } = checked;
  const more = broken.length - MOST_BROKEN;
  print(
    `decoded all ${counted(pictures, 'picture')}: ${broken.length === 0 ? 'none is broken' : `${count(broken.length)} broken`}`,
    ...broken.slice(0, MOST_BROKEN).map(({ path, reason }) => `  ${path}: ${reason}`),
    ...(more > 0 ? [`  and ${count(more)} more; --json lists all`] : []),
  );
}

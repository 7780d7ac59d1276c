/** `dsd study NAME`: every case with every seed, then tables, figures and a verdict. What is finished is never computed again. */
import { cpus } from 'node:os';
import { join } from 'node:path';
import { InterruptedError, UsageError } from '../core/errors.js';
import { disk } from '../io/disk.js';
import { findNamed } from '../study/named.js';
import { RESULTS } from '../study/store.js';
import type { Machine, Workplace } from '../study/study.js';
import { engineInfo } from '../torch/index.js';
import { SETTINGS } from '../train/config.js';
import { advised } from './broken.js';
import { defineCommand, type Section } from './command.js';
import { ENGINE, type Engine, openEngine } from './engine.js';
import { hanging } from './help.js';
import { print, printJson, RESULT } from './output.js';
import { openProgress } from './progress.js';
import { invocation, quoted } from './self.js';
import { stopOnSignals } from './signals.js';
import { collapseStudy } from './study-collapse.js';
import { paradigmsStudy, scalingStudy } from './study-compare.js';
import { OWN_FLAGS, type StudyEntry, type StudyFlags } from './study-entry.js';
import { counted } from './text.js';

const STUDIES = { collapse: collapseStudy, paradigms: paradigmsStudy, scaling: scalingStudy } as const satisfies Record<string, StudyEntry>;
const about = Object.entries(STUDIES).map(([name, entry]) => `${name}: ${entry.about}.`);

export const study = defineCommand({
  name: 'study',
  about: `Shows the science. ${about.join(' ')} Each writes tables, figures and all numbers, and says what they come to by a rule that it states. Run again, it goes on where it was.`,
  operands: { names: Object.keys(STUDIES).join('|'), min: 1, max: 1 },
  flags: {
    preset: { kind: 'text', value: 'NAME', about: 'size of it: see Presets; cpu by default' },
    cases: { kind: 'text', value: 'A,B,...', about: 'some of the cases: see Cases; by default all but those that say otherwise' },
    data: { kind: 'text', value: 'SPEC', about: "other pictures than the preset's: openmoji, fashion-mnist, or a folder" },
    seeds: { kind: 'whole', value: 'N', min: 1, max: 1000, about: 'seeds 1 to N; 3 by default' },
    out: {
      kind: 'text',
      value: 'FOLDER',
      about: "the study's folder; by default runs/study-NAME-PRESET. What is finished there is kept",
    },
    ...OWN_FLAGS,
    set: { kind: 'text', value: 'NAME=VALUE', repeat: true, about: "a setting of all runs, under the cases' own; `dsd info` lists them" },
    ...ENGINE,
    ...RESULT,
  },
  examples: [
    ['dsd study collapse --seeds 1', 'every case once: a quarter of an hour on 2 cores'],
    ['dsd study collapse --cases naive,norm --seeds 3', 'the two ends only'],
    ['dsd study collapse --data fashion-mnist --set data.image=28 --set model.patch=7', 'other pictures; 28 px are 4 x 4 patches of 7'],
    ['dsd study collapse --preset gpu --device cuda --out runs/collapse', 'the large one'],
    ['dsd study paradigms --seeds 1', 'every paradigm once: an hour on 2 cores'],
    ['dsd study paradigms --preset gpu --data DIR --set train.images=150000', 'on IDX files of Fashion-MNIST in DIR, half as long'],
    ['dsd study scaling --preset gpu --device cuda', 'three sizes on a GPU'],
  ],
  sections: async () => Object.entries(STUDIES).flatMap(([name, entry]) => sections(name, entry)),
  settings: () => SETTINGS,
  run: async (flags, [which = '']) => {
    const entry: StudyEntry = findNamed('study', STUDIES, which);
    checkFlags(which, entry, flags);
    const preset = flags.preset ?? 'cpu';
    findNamed(`preset of the study ${which}`, entry.presets, preset);
    const seeds = Array.from({ length: flags.seeds ?? 3 }, (_, i) => i + 1);
    const plan = entry.plan({ ...flags, preset, seeds });
    const out = flags.out ?? join('runs', `study-${which}-${preset}${flags.norm ? '-norm' : ''}`);
    checkFolder(out);
    const progress = openProgress(flags);
    const engine = openEngine(flags);
    progress.note(
      `study    ${which}, preset ${preset}: ${counted(plan.cases, 'case')} x ${counted(seeds.length, 'seed')}, ${counted(plan.runs, 'run')}`,
      `compute  ${engine.about}`,
      `folder   ${out}`,
    );
    disk.mkdir(join(out, RESULTS));
    const stop = stopOnSignals((line) => progress.note(line), 'keeping what can be gone on with and stopping. Once more ends at once');
    const began = performance.now();
    const work: Workplace = { out, device: engine.device, compute: engine.compute, machine: machineOf(engine), signal: stop.signal };
    let kept = 0;
    try {
      const report = await plan.compute(work, progress, (finished) => {
        kept = finished;
      });
      progress.clear();
      const seconds = (performance.now() - began) / 1000;
      const { files, rule, summaries, table } = report;
      if (flags.json) return printJson({ out, files, rule, summaries, seconds });
      print(...table, '', ...files.map((file) => join(out, file)));
    } catch (error) {
      if (!(error instanceof InterruptedError)) throw advised(error, plan.source);
      throw new InterruptedError(
        `stopped with ${kept} of ${counted(plan.runs, 'run')} finished, which are kept in '${out}'. To go on: ${invocation()} ${process.argv.slice(2).map(quoted).join(' ')}`,
        { cause: error },
      );
    } finally {
      progress.clear();
      stop.release();
    }
  },
});

/** A flag that would change nothing is a mistake. @throws UsageError */
function checkFlags(which: string, entry: StudyEntry, flags: StudyFlags): void {
  for (const name of Object.keys(OWN_FLAGS) as (keyof typeof OWN_FLAGS)[]) {
    if (flags[name] === undefined || flags[name] === false || entry.takes.includes(name)) continue;
    const others = Object.entries<StudyEntry>(STUDIES).flatMap(([other, { takes }]) => (takes.includes(name) ? [other] : []));
    throw new UsageError(`--${name} is a flag of the study ${others.join(' and of ')}, and does nothing in ${which}`);
  }
}

/** A folder of something else is not written into. @throws UsageError, DiskError */
function checkFolder(out: string): void {
  disk.checkWritable(out);
  if (!disk.exists(out)) return;
  if (disk.stat(out).kind !== 'folder') throw new UsageError(`'${out}' is a file: choose another --out`);
  const names = disk.list(out);
  if (names.length > 0 && !names.includes(RESULTS))
    throw new UsageError(`'${out}' is not empty and no folder of a study: choose another --out`);
}

const machineOf = (engine: Engine): Machine => {
  const { version, threads, cuda } = engineInfo();
  const { device } = engine;
  return {
    device: device === 'cpu' ? 'cpu' : (cuda[Number(device.split(':')[1] ?? 0)] ?? device),
    compute: engine.compute,
    threads,
    libtorch: version,
    processor: cpus()[0]?.model.trim() ?? 'unknown',
  };
};

function sections(name: string, { presets, cases }: StudyEntry): Section[] {
  const wide = Math.min(process.stdout.columns ?? 80, 110);
  const lines = (rows: readonly (readonly [string, string])[]): string[] =>
    hanging(
      rows.map(([left, right]) => [`  ${left}`, right]),
      wide,
    );
  return [
    {
      heading: `Presets of ${name}`,
      lines: lines(Object.entries(presets).map(([preset, { about: what, cost, expect }]) => [preset, `${what}; ${cost}; ${expect}`])),
    },
    { heading: `Cases of ${name}`, lines: lines(cases) },
  ];
}

/** `dsd study collapse`: every case with every seed, then a table, a figure and verdicts. What is finished is never computed again. */
import { cpus } from 'node:os';
import { join } from 'node:path';
import { InterruptedError, nearest, UsageError } from '../core/errors.js';
import { disk } from '../io/disk.js';
import { CASES, findCases } from '../study/cases.js';
import { type CollapsePlan, collapse, planRuns, type StudyProgress } from '../study/collapse.js';
import { findStudyPreset, STUDY_PRESETS } from '../study/presets.js';
import { writeReport } from '../study/report.js';
import { RESULTS, type RunResult } from '../study/store.js';
import { summarize, verdictOf } from '../study/summary.js';
import { ruleInWords } from '../study/verdict.js';
import { engineInfo } from '../torch/index.js';
import { parseSetting, SETTINGS } from '../train/config.js';
import { advised } from './broken.js';
import { defineCommand, type Section } from './command.js';
import { ENGINE, type Engine, openEngine } from './engine.js';
import { hanging } from './help.js';
import { print, printJson, RESULT } from './output.js';
import { openProgress, type Progress } from './progress.js';
import { invocation, quoted } from './self.js';
import { stopOnSignals } from './signals.js';
import { count, counted, duration, figure } from './text.js';

const STUDIES = ['collapse'] as const;

export const study = defineCommand({
  name: 'study',
  about:
    'Shows the science. collapse: trains the same small network from naive joint training to the cured one, one change at a time, with several seeds, and records effective rank, scale and reconstruction of the latent; writes a table, a figure, all numbers, and a verdict on each run. Run again, it goes on where it was.',
  operands: { names: 'collapse', min: 1, max: 1 },
  flags: {
    preset: { kind: 'text', value: 'NAME', about: 'size of it: see Presets; cpu by default' },
    cases: { kind: 'text', value: 'A,B,...', about: 'some of the cases: see Cases; all by default' },
    data: { kind: 'text', value: 'SPEC', about: "other pictures than the preset's: openmoji, fashion-mnist, or a folder" },
    seeds: { kind: 'whole', value: 'N', min: 1, max: 1000, about: 'seeds 1 to N; 3 by default' },
    out: {
      kind: 'text',
      value: 'FOLDER',
      about: "the study's folder; by default runs/study-collapse-PRESET. What is finished there is kept",
    },
    scale: {
      kind: 'number',
      value: 'S',
      min: 0,
      max: 1000,
      about: "deviation that latents begin with; 1, the noise's, by default; 0: as the network's first values make it",
    },
    norm: { kind: 'switch', about: 'a LayerNorm on the latent in every case, not only in the last; into a folder of its own' },
    set: { kind: 'text', value: 'NAME=VALUE', repeat: true, about: "a setting of all runs, under the cases' own; `dsd info` lists them" },
    ...ENGINE,
    ...RESULT,
  },
  examples: [
    ['dsd study collapse --seeds 1', 'every case once: a quarter of an hour on 2 cores'],
    ['dsd study collapse --cases naive,norm --seeds 3', 'the two ends only'],
    ['dsd study collapse --data fashion-mnist --set data.image=28 --set model.patch=7', 'other pictures; 28 px are 4 x 4 patches of 7'],
    ['dsd study collapse --preset gpu --device cuda --out runs/collapse', 'the large one'],
  ],
  sections: async () => sections(),
  settings: () => SETTINGS,
  run: async (flags, [which = '']) => {
    if (!STUDIES.some((name) => name === which)) {
      const guess = nearest(which, STUDIES);
      throw new UsageError(`there is no study '${which}'${guess ? `; did you mean '${guess}'?` : '.'} Studies: ${STUDIES.join(', ')}`);
    }
    const plan = readPlan(flags);
    const name = flags.preset ?? 'cpu';
    const out = flags.out ?? join('runs', `study-collapse-${name}${flags.norm ? '-norm' : ''}`);
    const runs = planRuns(plan);
    checkFolder(out);
    const progress = openProgress(flags);
    const engine = openEngine(flags);
    progress.note(
      `study    collapse, preset ${name}: ${counted(plan.cases.length, 'case')} x ${counted(plan.seeds.length, 'seed')}, ${counted(runs.length, 'run')}`,
      `compute  ${engine.about}`,
      `folder   ${out}`,
    );
    disk.mkdir(join(out, RESULTS));
    const stop = stopOnSignals((line) => progress.note(line), 'keeping the finished runs and stopping. Once more ends at once');
    const rate = progressLine(progress);
    const began = performance.now();
    let kept = 0;
    try {
      const results = await collapse(plan, {
        ...{ out, device: engine.device, compute: engine.compute, machine: machineOf(engine), signal: stop.signal },
        onFound: (finished) => {
          kept = finished.length;
          if (kept > 0) progress.note(`found    ${counted(kept, 'run')} finished before`);
        },
        onData: (data) => progress.update(`opening ${data}`),
        onProgress: rate,
        onResult: async (result, finished) => {
          kept = finished.length;
          progress.note(said(result));
          await writeReport(out, finished, runs.length);
        },
      });
      const report = await writeReport(out, results, runs.length);
      progress.clear();
      const seconds = (performance.now() - began) / 1000;
      if (flags.json) return printJson({ out, files: report.files, rule: ruleInWords(), summaries: report.summaries, seconds });
      print(...report.table, '', ...report.files.map((file) => join(out, file)));
    } catch (error) {
      if (!(error instanceof InterruptedError)) throw advised(error, flags.data ?? 'openmoji');
      throw new InterruptedError(
        `stopped with ${kept} of ${counted(runs.length, 'run')} finished, which are kept in '${out}'. To go on: ${invocation()} ${process.argv.slice(2).map(quoted).join(' ')}`,
        { cause: error },
      );
    } finally {
      progress.clear();
      stop.release();
    }
  },
});

interface PlanFlags {
  readonly preset: string | undefined;
  readonly cases: string | undefined;
  readonly data: string | undefined;
  readonly seeds: number | undefined;
  readonly scale: number | undefined;
  readonly norm: boolean;
  readonly set: readonly string[];
}

/** @throws UsageError */
function readPlan({ preset = 'cpu', cases, data, seeds = 3, scale, norm, set }: PlanFlags): CollapsePlan {
  const found = findStudyPreset(preset);
  return {
    preset: {
      ...found,
      // With pictures of the user's own there is one set of them.
      ...(data === undefined ? {} : { data: found.data.slice(0, 1) }),
      ...(scale === undefined ? {} : { scale }),
    },
    cases: cases === undefined ? CASES : findCases(cases.split(',')),
    seeds: Array.from({ length: seeds }, (_, i) => i + 1),
    norm,
    settings: [...(data === undefined ? [] : [{ data: { source: data } }]), ...set.map(parseSetting)],
  };
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

const machineOf = (engine: Engine): RunResult['machine'] => {
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

/** The live line, with the time left by the rate since the first step: every picture of every run costs about the same. */
function progressLine(progress: Progress): (at: StudyProgress) => void {
  let first: { readonly time: number; readonly trained: number } | undefined;
  return ({ run, images, last, done, of, trained, left }) => {
    const time = performance.now();
    first ??= { time, trained };
    const seconds = (((time - first.time) / 1000) * left) / (trained - first.trained);
    progress.update(
      `run ${done + 1}/${of} ${run.case.name}, seed ${run.seed}: ${count(images)}/${count(run.config.train.images)}`,
      `ETA ${duration(seconds)}`,
      `rank ${last.effectiveRank.toFixed(1)}`,
      `deviation ${figure(last.latentDeviation)}`,
      `L1 ${figure(last.l1)}`,
    );
  };
}

function said(result: RunResult): string {
  const [row] = summarize([result]);
  const { curve, config } = result;
  const numbers = row
    ? `rank ${row.effectiveRank.mean.toFixed(1)} of ${config.model.latent}, deviation ${figure(row.latentDeviation.mean)}, L1 ${figure(row.l1.mean)}`
    : '';
  return `${result.data} ${result.case}, seed ${result.seed}: ${verdictOf(result)}; ${numbers}; ${duration(curve.seconds)}`;
}

function sections(): Section[] {
  const columns = Math.min(process.stdout.columns ?? 80, 110);
  return [
    {
      heading: 'Presets',
      lines: hanging(
        Object.entries(STUDY_PRESETS).map(([name, { about, cost }]) => [`  ${name}`, `${about}; ${cost}`]),
        columns,
      ),
    },
    {
      heading: 'Cases',
      lines: hanging(
        CASES.map(({ name, about }) => [`  ${name}`, about]),
        columns,
      ),
    },
  ];
}

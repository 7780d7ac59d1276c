/** The comparing studies of a few steps from end to end, as a user would run them: stopped, gone on with, refused. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { dsd, type Ended, makePictures, start, workplace } from '../cli/harness.js';

const { folder, remove } = workplace();
const at = (...parts: string[]): string => join(folder, ...parts);
const read = (...parts: string[]): string => readFileSync(at(...parts), 'utf8');
const exits = (ended: Ended, code: number): Ended => {
  assert.equal(ended.code, code, ended.stderr);
  return ended;
};

const set = (...settings: string[]): string[] => settings.flatMap((setting) => ['--set', setting]);
const SHORT = set(
  'data.image=16',
  'train.images=64',
  'train.batch=16',
  'train.warmup=16',
  'log.every=16',
  'sample.steps=2',
  'sample.guidance=2',
);
const JUDGED = ['--features', 'classifier', '--classifier-steps', '1', '--count', '6', '--real', '6'];
const COMMON = ['--data', 'pictures', '--dtype', 'float32', '--device', 'cpu', ...SHORT, ...JUDGED];
/** Deep enough to be divided. */
const SMALL = set('model.width=16', 'model.depth=4', 'model.heads=1', 'model.hidden=64', 'model.prototypes=2');
const PARADIGMS = ['study', 'paradigms', ...COMMON, ...SMALL];

before(() => makePictures(at('pictures')));
after(remove);

test('what judging wants is looked at before anything is trained', async () => {
  const ended = exits(
    await dsd([...PARADIGMS.map((word) => (word === 'classifier' ? 'inception-2015' : word)), '--out', 'early'], {
      cwd: folder,
      env: { DSD_INCEPTION: '' },
    }),
    2,
  );
  assert.match(ended.stderr, /Name their file in the variable DSD_INCEPTION/);
  assert.ok(!existsSync(at('early', 'runs')));
});

test('paradigms: every case is trained and judged; an interrupted study goes on with the run that it was in', async () => {
  const words = [...PARADIGMS, '--seeds', '1', '--out', 'out'];
  const running = start(words, { cwd: folder });
  await running.said('label-free, seed 1:');
  running.kill('SIGTERM');
  const stopped = exits(await running.ended, 75);
  assert.match(stopped.stderr, /stopped with [2-4] of 5 runs finished, which are kept in 'out'\. To go on: .*study paradigms .*--out out/);
  const first = read('out', 'results', 'pictures-16px.dsd.1.json');
  assert.match(read('out', 'table.md'), /^Not finished: [1-3] of 5 runs/m);
  assert.ok(existsSync(at('out', 'samples-pictures-16px.png')), 'what there is is shown');

  const { stdout, stderr } = exits(await dsd(words, { cwd: folder }), 0);
  assert.match(stderr, /^found +[2-4] runs finished before$/m);
  assert.equal(read('out', 'results', 'pictures-16px.dsd.1.json'), first);
  assert.match(
    stdout,
    /^\| two-stage latent diffusion +\| autoencoder 1\dk \+ denoiser 1\dk +\| [\d,]+ \((9[89]|10[012])\.\d %\) .*\((9[89]|10[012])\.\d %\)/m,
  );
  assert.match(
    stdout,
    /^- FD-classifier: DSD .* of two-stage latent diffusion: [\d.]+ % (lower|higher), by one seed, whose spread is unknown\.$/m,
  );
  assert.match(stdout, /^- label-free: labels none: the null class$/m);
  assert.match(stdout, /^- self-distillation: no decoder/m);
  for (const name of ['figure-pictures-16px.svg', 'figure-pictures-16px.png', 'samples-pictures-16px.png', 'study.json', 'table.md'])
    assert.ok(existsSync(at('out', name)), name);
  interface Run {
    readonly case: string;
    readonly trained: readonly { readonly run: string }[];
    readonly drawing?: {
      readonly samples: readonly { readonly sampler: { readonly guidance: number; readonly target: string }; readonly accuracy?: number }[];
    };
    readonly encoding?: { readonly probes: { readonly linear: number } };
  }
  const { runs } = JSON.parse(read('out', 'study.json')) as { runs: Run[] };
  assert.deepEqual(
    runs.map((run) => [run.case, run.trained.length, run.drawing?.samples.map(({ sampler }) => `${sampler.target} ${sampler.guidance}`)]),
    [
      ['dsd', 1, ['clean 1', 'clean 2']],
      ['label-free', 1, ['clean 1']],
      ['naive', 1, ['velocity 1', 'velocity 2']],
      ['two-stage', 2, ['velocity 1', 'velocity 2']],
      ['self-distillation', 1, undefined],
    ],
  );
  assert.ok(runs.at(-1)?.encoding?.probes.linear !== undefined && runs[1]?.drawing?.samples[0]?.accuracy === undefined);
  assert.ok(readdirSync(at('out', 'runs')).length === 6 && !existsSync(at('out', runs[0]!.trained[0]!.run, 'checkpoints')));
  // A run's weights are those of any run; what was judged from them is judged again without training.
  rmSync(at('out', 'results', 'pictures-16px.dsd.1.json'));
  const again = exits(await dsd([...words, '--cases', 'dsd', '--json', '--quiet'], { cwd: folder }), 0);
  const [summary] = (JSON.parse(again.stdout) as { summaries: { case: string }[] }).summaries;
  assert.equal(summary?.case, 'dsd');
  const judged = (text: string) => (JSON.parse(text) as { drawing: object; drawn: object }).drawing;
  assert.deepEqual(judged(read('out', 'results', 'pictures-16px.dsd.1.json')), judged(first));
  // The one case whose frozen network has another shape.
  const deep = exits(await dsd([...words, '--cases', 'dsd,two-stage-deep', '--quiet'], { cwd: folder }), 0).stdout;
  assert.match(
    deep,
    /^\| two-stage, deep denoiser +\| autoencoder \d+k \+ denoiser \d+k +\| [\d,]+ \((9[89]|10[012])\.\d %\) .*\((9[89]|10[012])\.\d %\)/m,
  );
  assert.match(deep, /^- FD-classifier: DSD .* of two-stage, deep denoiser: /m);
});

test('scaling: three sizes and what they are worth', async () => {
  const { stdout } = exits(await dsd(['study', 'scaling', ...COMMON, '--seeds', '1', '--out', 'sizes', '--quiet'], { cwd: folder }), 0);
  assert.match(stdout, /^\| small \(32 wide, 3 blocks\) +\| 5\dk +\|/m);
  assert.match(stdout, /^\| large \(128 wide, 6 blocks\) +\| 1\.\d\dM +\|/m);
  assert.match(stdout, /^- FD-classifier (falls|does not fall) with each size/m);
  assert.ok(existsSync(at('sizes', 'figure-pictures-16px.png')));
});

test('a mistake is refused before any work, by name', async () => {
  const mistakes: readonly (readonly [words: string[], text: RegExp])[] = [
    [['study', 'paradigm'], /there is no study 'paradigm'; did you mean 'paradigms'\?/],
    [[...PARADIGMS, '--cases', 'two-stages'], /there is no case 'two-stages'; did you mean 'two-stage'\?/],
    [[...PARADIGMS, '--preset', 'gpus'], /there is no preset of the study paradigms 'gpus'; did you mean 'gpu'\?/],
    [[...PARADIGMS, '--norm'], /--norm is a flag of the study collapse, and does nothing in paradigms/],
    [['study', 'collapse', '--count', '8'], /--count is a flag of the study paradigms and of scaling, and does nothing in collapse/],
    [['study', 'scaling', '--scale', '0.5'], /--scale is a flag of the study collapse and of paradigms/],
    [[...PARADIGMS, '--split', '2'], /--split wants a number from 0\.05 to 0\.95/],
    [['study', 'paradigms', '--features', 'inception'], /--features wants some of .*did you mean 'inception-2015'\?/],
    [[...PARADIGMS, '--set', 'objective.paradigm=naive'], /the paradigm is what cases are of; choose by --cases/],
    [[...PARADIGMS, ...set('model.depth=1')], /no two networks of 1 and 1 blocks have together/],
    [[...PARADIGMS, '--out', 'pictures'], /'pictures' is not empty and no folder of a study/],
    // Results of other settings are not mixed with these.
    [
      [...PARADIGMS, '--seeds', '1', '--out', 'out', ...set('sample.steps=3')],
      /dsd\.1\.json' is of other settings: stages\.0\.config\.sample\.steps 2, wanted 3/,
    ],
  ];
  const open = [...mistakes];
  const work = async (): Promise<void> => {
    for (let next = open.shift(); next; next = open.shift()) assert.match(exits(await dsd(next[0], { cwd: folder }), 2).stderr, next[1]);
  };
  await Promise.all([work(), work()]);
});

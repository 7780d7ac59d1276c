/** A study of a few steps from end to end, as a user would run it: stopped, gone on with, refused. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { dsd, type Ended, makePictures, start, workplace } from '../cli/harness.js';

const { folder, remove } = workplace();
const at = (...parts: string[]): string => join(folder, ...parts);
const results = (): string[] => readdirSync(at('out', 'results')).sort();
const read = (...parts: string[]): string => readFileSync(at(...parts), 'utf8');
const exits = (ended: Ended, code: number): Ended => {
  assert.equal(ended.code, code, ended.stderr);
  return ended;
};

const SMALL = ['width=16', 'depth=1', 'heads=1', 'hidden=16', 'prototypes=2'].map((setting) => `model.${setting}`);
const SETTINGS = [...SMALL, 'train.images=64', 'train.batch=16', 'train.warmup=16', 'log.evaluate=16'].flatMap((setting) => [
  '--set',
  setting,
]);
const STUDY = ['study', 'collapse', '--data', 'pictures', '--dtype', 'float32', '--device', 'cpu', ...SETTINGS];
const TWO = [...STUDY, '--cases', 'norm,naive', '--out', 'out'];

before(() => makePictures(at('pictures')));
after(remove);

test('interrupted it keeps what is finished; the same command goes on, and leaves table, figure and numbers', async () => {
  const running = start([...TWO, '--seeds', '2', '--set', 'train.images=800', '--set', 'log.evaluate=80'], { cwd: folder });
  await running.said('naive, seed 1:');
  running.kill('SIGINT');
  const stopped = exits(await running.ended, 75);
  assert.match(
    stopped.stderr,
    /stopped with [123] of 4 runs finished, which are kept in 'out'\. To go on: .*main\.js study collapse .*--out out/,
  );
  const kept = results();
  assert.ok(kept.length >= 1 && kept.length < 4, `${kept}`);
  assert.ok(kept.includes('pictures-16px.naive.1.json'));
  assert.match(read('out', 'table.md'), /^Not finished: [123] of 4 runs are still to be computed\.$/m);
  const first = read('out', 'results', 'pictures-16px.naive.1.json');

  const ended = exits(await dsd([...TWO, '--seeds', '2', '--set', 'train.images=800', '--set', 'log.evaluate=80'], { cwd: folder }), 0);
  assert.match(ended.stderr, /^found +[123] runs? finished before$/m);
  assert.doesNotMatch(ended.stderr, /naive, seed 1:/);
  assert.equal(read('out', 'results', 'pictures-16px.naive.1.json'), first);
  assert.match(ended.stdout, /^\| naive: velocity +\| .* ± /m);
  assert.match(ended.stdout, /^- variance-suppressed: deviation of the latent/m);
  assert.doesNotMatch(read('out', 'table.md'), /Not finished/);
  for (const name of ['figure-pictures-16px.svg', 'figure-pictures-16px.png', 'study.json']) assert.ok(existsSync(at('out', name)), name);
  const { runs, summaries } = JSON.parse(read('out', 'study.json')) as {
    runs: { case: string; seed: number; verdict: string; curve: { points: { images: number }[] }; config: { train: { seed: number } } }[];
    summaries: unknown[];
  };
  assert.deepEqual(
    runs.map((run) => [run.case, run.seed, run.config.train.seed, run.curve.points.length, run.curve.points.at(-1)?.images]),
    [
      ['naive', 1, 1, 11, 800],
      ['norm', 1, 1, 11, 800],
      ['naive', 2, 2, 11, 800],
      ['norm', 2, 2, 11, 800],
    ],
  );
  assert.equal(summaries.length, 2);
});

test('cases of one seed begin alike, whichever of them are run; what is measured does not depend on an interruption', async () => {
  const one = exits(
    await dsd([...STUDY, '--cases', 'ema,autoencoder', '--seeds', '1', '--out', 'alike', '--json', '--quiet'], { cwd: folder }),
    0,
  );
  assert.equal(one.stderr, '');
  assert.equal((JSON.parse(one.stdout) as { summaries: unknown[] }).summaries.length, 2);
  const points = (name: string) =>
    (JSON.parse(read('alike', 'results', `pictures-16px.${name}.1.json`)) as { curve: { points: Record<string, number>[] } }).curve.points;
  assert.deepEqual(points('ema')[0], points('autoencoder')[0]);
  assert.notDeepEqual(points('ema')[4]?.l1, points('autoencoder')[4]?.l1);
  // The untrained latent has been brought to the noise's scale.
  assert.ok(Math.abs((points('ema')[0]?.deviation ?? 0) - 1) < 1e-3);
  exits(await dsd([...STUDY, '--cases', 'ema', '--seeds', '1', '--out', 'again', '--quiet'], { cwd: folder }), 0);
  const again = (JSON.parse(read('again', 'results', 'pictures-16px.ema.1.json')) as { curve: { points: unknown } }).curve.points;
  assert.deepEqual(again, points('ema'));
});

test('a run that was finished before a setting was there is finished', async () => {
  const path = at('again', 'results', 'pictures-16px.ema.1.json');
  const result = JSON.parse(readFileSync(path, 'utf8')) as { config: { objective: Record<string, unknown> } };
  assert.equal(result.config.objective.preconditioned, false);
  delete result.config.objective.preconditioned;
  result.config.objective.gradientIntoInput = true;
  const before = `${JSON.stringify(result)}\n`;
  writeFileSync(path, before);
  exits(await dsd([...STUDY, '--cases', 'ema', '--seeds', '1', '--out', 'again', '--quiet'], { cwd: folder }), 0);
  assert.equal(readFileSync(path, 'utf8'), before);
});

test('a mistake is refused before any work, by name', async () => {
  const other = [...STUDY, '--cases', 'ema', '--seeds', '1', '--out', 'alike'];
  const mistakes: readonly (readonly [words: string[], text: RegExp])[] = [
    [['study', 'colapse'], /there is no study 'colapse'; did you mean 'collapse'\?/],
    [[...STUDY, '--cases', 'naiv'], /there is no case 'naiv'; did you mean 'naive'\?/],
    [[...STUDY, '--preset', 'gpus'], /there is no preset of the study collapse 'gpus'; did you mean 'gpu'\?/],
    [[...STUDY, '--out', 'pictures'], /'pictures' is not empty and no folder of a study/],
    // Results of other settings are not mixed with these.
    [[...other, '--norm'], /ema\.1\.json' is of other settings: config\.model\.latentNorm false, wanted true/],
    [[...other, '--set', 'train.learningRate=0.5'], /ema\.1\.json' is of other settings: config\.train\.learningRate 0\.001, wanted 0\.5/],
  ];
  // One after another: two at once would meet at the folder's lock.
  for (const [words, text] of mistakes) assert.match(exits(await dsd(words, { cwd: folder }), 2).stderr, text);
  writeFileSync(at('alike', 'results', 'pictures-16px.ema.1.json'), '{"data":');
  const broken = exits(await dsd(other, { cwd: folder }), 1);
  assert.match(broken.stderr, /ema\.1\.json' is no result of this study: it is not JSON\. Remove it/);
});

/** What `dsd eval` says and writes beside its figures: files, warnings, and refusals of what cannot be meant. */
import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { pictureLines } from '../../src/cli/eval-report.js';
import type { PicturesReport } from '../../src/eval/evaluate.js';
import { writeNpz } from '../../src/io/npz.js';
import { dsd, type Ended, makePictures, TOY, workplace } from './harness.js';

const { folder, remove } = workplace();
const at = (...parts: string[]): string => join(folder, ...parts);
const evaluate = (...words: readonly string[]): Promise<Ended> => dsd(['eval', ...words, '--quiet'], { cwd: folder });
const FEW = ['--count', '6', '--real', '8', '--classifier-steps', '1'];
/** One network that is trained in a moment. */
const BRIEF = ['--features', 'classifier', ...FEW];
/** Pictures of noise, of 16 px if nothing else is said. */
function npz(name: string, count: number, size = 16): void {
  const data = Uint8Array.from({ length: count * size * size * 3 }, (_, i) => (i * i + 7 * i) % 251);
  writeNpz(at(name), new Map([['arr_0', { dtype: 'uint8', shape: [count, size, size, 3], data }]]));
}

before(async () => {
  await makePictures(at('pictures'));
  const { code, stderr } = await dsd([...TOY, '--data', 'pictures', '--out', 'run', '--quiet'], { cwd: folder });
  assert.equal(code, 0, stderr);
});
after(remove);

async function refuse(message: RegExp, ...words: readonly string[]): Promise<void> {
  const { code, stdout, stderr } = await evaluate(...words);
  assert.match(stderr, message, words.join(' '));
  assert.deepEqual([code, stdout], [2, ''], words.join(' '));
}

test('plots go where none of their files is, by every network', async () => {
  writeFileSync(at('sweep.classifier.png'), 'of an earlier sweep');
  writeFileSync(at('sweep-2.nsfwjs-mixed7.svg'), 'of another');
  const judges = ['--features', 'classifier,nsfwjs-mixed7'];
  const { code, stdout, stderr } = await evaluate('run', ...FEW, ...judges, '--sweep', 'guidance=1,2', '--sweep', 'steps=1');
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^sweep-3\.classifier\.png\nsweep-3\.classifier\.svg\nsweep-3\.nsfwjs-mixed7\.png\nsweep-3\.nsfwjs-mixed7\.svg\n$/m);
  assert.ok(existsSync(at('sweep-3.nsfwjs-mixed7.svg')));
});

test('a file that cannot be written is refused by its own flag, and so is a plot of nothing', async () => {
  writeFileSync(at('there.png'), '');
  writeFileSync(at('there.npz'), '');
  const sweep = ['--sweep', 'steps=1,2'];
  await refuse(/'there\.png' exists: choose another --plot, or add --overwrite/, 'run', ...BRIEF, ...sweep, '--plot', 'there.png');
  await refuse(/so --plot must end in \.png; found 'q\.svg'/, 'run', ...sweep, '--plot', 'q.svg');
  await refuse(/so --neighbours must end in \.png; found 'n\.jpg'/, 'run', ...BRIEF, '--neighbours', 'n.jpg');
  await refuse(
    /'there\.npz' exists: choose another --write-reference/,
    ...['run', '--features', 'nsfwjs-mixed7', '--write-reference', 'there.npz'],
  );
  await refuse(
    /--plot draws a sweep, and here nothing is swept: guidance is 2\. Add --sweep/,
    ...['run', ...BRIEF, '--guidance', '2', '--plot', 'p.png'],
  );
});

test('flags that would change nothing are refused', async () => {
  npz('real.npz', 6);
  await refuse(
    /--inception names the weights of inception-2015, and those that judge here are classifier: add it to --features/,
    ...['run', ...BRIEF, '--inception', 'weights.pt'],
  );
  await refuse(
    /--classifier-steps is for training a classifier, and those that judge here are nsfwjs-mixed7/,
    ...['run', '--features', 'nsfwjs-mixed7', '--classifier-steps', '5'],
  );
  for (const [flag, value] of [
    ['--real', '8'],
    ['--against', 'held-out'],
  ] as const)
    await refuse(
      new RegExp(`${flag} chooses pictures of the data as the reference, and here it is all that real\\.npz holds`),
      ...['run', '--reference', 'real.npz', flag, value],
    );
});

test('a reference of pictures of another size is warned of', async () => {
  npz('large.npz', 6, 32);
  npz('some.npz', 6);
  const against = async (reference: string): Promise<Ended> =>
    evaluate('some.npz', '--features', 'nsfwjs-mixed7', '--reference', reference, '--json');
  const warned = await against('large.npz');
  assert.equal(warned.code, 0, warned.stderr);
  const [first] = (JSON.parse(warned.stdout) as { warnings: string[] }).warnings;
  assert.match(
    first ?? '',
    /^large\.npz has pictures of 32 x 32 px, and the samples have 16 x 16 px: distances are of size and sharpness too/,
  );
  assert.doesNotMatch((await against('some.npz')).stdout, / x 16 px/);
  const ofModel = await evaluate('run', ...FEW.slice(0, 2), '--guidance', '1', '--features', 'nsfwjs-mixed7', '--reference', 'large.npz');
  assert.match(ofModel.stdout, /^warning: large\.npz has pictures of 32 x 32 px, and the samples have 16 x 16 px/m);
});

test('what is no set of pictures is refused by what it is', async () => {
  await refuse(
    /'pictures\/val\/dark\/24\.png' is a picture, and sets of pictures are measured: name a folder of them, an \.npz/,
    ...['pictures/val/dark/24.png', '--data', 'pictures'],
  );
  await refuse(/pictures has its pictures deeper: .* Name such a folder, as pictures\/train$/m, 'pictures', '--data', 'pictures');
});

test('a sweep of solvers says how often each asks the network', async () => {
  const words = ['run', ...BRIEF, '--guidance', '1', '--sweep', 'solver=euler,heun', '--sweep', 'steps=1,2', '--plot', 'solvers.png'];
  const { code, stdout, stderr } = await evaluate(...words);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^by classifier +NFE +FD-classifier .*\nguidance 1, 1 step, euler +1 .*\nguidance 1, 2 steps, euler +2 /m);
  assert.match(stdout, /^guidance 1, 1 step, heun +1 .*\nguidance 1, 2 steps, heun +3 .*\nreal pictures \(6\) +\d/m);
  assert.match(stdout, /^NFE: the solver's evaluations, in each of which guidance, where it is applied, asks the network twice$/m);
  const told = JSON.parse((await evaluate(...words.slice(0, -2), '--json', '--plot', 'more.png')).stdout) as { samples: { nfe: number }[] };
  assert.deepEqual(
    told.samples.map(({ nfe }) => nfe),
    [1, 2, 1, 3],
  );
});

test('an encoder that was trained on classes is called so beside what it knows of them', async () => {
  const train = async (out: string, ...settings: readonly string[]): Promise<void> => {
    const set = ['objective.paradigm=self-distillation', ...settings].flatMap((setting) => ['--set', setting]);
    const { code, stderr } = await dsd([...TOY, '--data', 'pictures', '--out', out, ...set, '--quiet'], { cwd: folder });
    assert.equal(code, 0, stderr);
  };
  await train('taught', 'objective.weights.classify=0.2');
  assert.match((await evaluate('taught')).stdout, /^encoder .* unseen; it was trained on classes \(objective\.weights\.classify=0\.2\)$/m);
  await train('free', 'objective.weights.classify=0.2', 'objective.labels=false');
  assert.match((await evaluate('free')).stdout, /^encoder .* unseen$/m);
  assert.equal((JSON.parse((await evaluate('free', '--json')).stdout) as { classifyWeight: number }).classifyWeight, 0);
});

test('an Inception Score is shown with its splits', () => {
  const lines = (pictures: number): string[] => {
    const distances = [
      ...[{ extractor: 'inception-2015', name: 'FID', frechet: 3, count: pictures, inceptionScore: { mean: 9, deviation: 1, splits: 10 } }],
      { extractor: 'nsfwjs-mixed7', name: 'FD-nsfwjs-mixed7', frechet: 1, count: pictures },
    ];
    const judges = distances.map(({ extractor, name }) => ({
      ...{ extractor, distance: name, dimension: 9, source: 'weights', reference: { source: 'real.npz', count: 8 } },
    }));
    const protocol = { samples: pictures, seed: 0, device: 'cpu', pictures: '', frechet: '', kernel: '', neighbours: 3, judges } as const;
    const report: PicturesReport = { name: 'some.npz', samples: { count: pictures, distances }, protocol, warnings: [] };
    return pictureLines(report, pictures).slice(-2);
  };
  const [inception, other] = lines(10_000);
  assert.match(
    inception ?? '',
    /real\.npz; IS is the mean of 10 splits, shuffled; ADM's evaluator splits by 5,000 in the order given, so its figures differ$/,
  );
  assert.match(other ?? '', /of real\.npz$/);
});

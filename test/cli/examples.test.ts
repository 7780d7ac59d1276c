/** Every example of every command's help is run as a user would paste it, on models that are trained by the examples of train themselves. */
import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { COMMANDS } from '../../src/cli/commands.js';
import { dsd, makePictures, workplace } from './harness.js';

const { folder, remove } = workplace();
after(remove);

/** What makes the examples small: a setting or flag that comes behind the example's own, and numbers in their place. */
const SIZES = ['model.width=32', 'model.depth=2', 'model.heads=2', 'model.hidden=64', 'sample.steps=1', 'sample.rows=1', 'data.workers=2'];
const LENGTH = ['train.images=32', 'train.batch=16', 'train.warmup=0', 'log.every=32'];
const SMALLER: readonly (readonly [example: RegExp, flags: readonly string[]])[] = [
  [/^dsd train .*--resume/, []],
  [/^dsd train/, [...SIZES, ...LENGTH].flatMap((setting) => ['--set', setting])],
  [/^dsd sample/, ['--steps', '1']],
  [/^dsd eval .*(\.npz|--sweep)/, ['--count', '8', '--classifier-steps', '1', '--real', '8', '--features', 'classifier']],
  [/^dsd eval/, ['--count', '8', '--classifier-steps', '1', '--real', '8', '--features', 'classifier', '--steps', '1']],
];
/** What takes longest or wants a GPU; commands.test.ts and bench.test.ts run bench and doctor, test/study the study, and they look at what is printed. */
const ELSEWHERE: readonly string[] = [
  'dsd bench',
  'dsd bench step --steps 40 --json',
  'dsd bench train --preset imagenet-256-B --batch 64 --against bench/peer/dsd_torch.py',
  'dsd bench train --preset imagenet-256-S --batch 128 --profile',
  'dsd doctor',
];
const smaller = (line: string): string =>
  line
    .replace('--device cuda', '--device cpu')
    .replace(/--count \d+/, '--count 8')
    .replace(/(bench \w+ --preset) \S+/, '$1 toy')
    .replace(/(bench .*--batch) \d+/, '$1 2');

/** Fashion-MNIST's files by name and kind, with 40 pictures to train on and 20 held out. */
function makeFashion(at: string): void {
  mkdirSync(at, { recursive: true });
  for (const [part, count] of [
    ['train', 40],
    ['t10k', 20],
  ] as const) {
    const pixels = Uint8Array.from({ length: count * 28 * 28 }, (_, i) => (i * 7 + (i >> 5)) % 256);
    writeFileSync(
      join(at, `${part}-images-idx3-ubyte`),
      Buffer.concat([Buffer.from([0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 28, 0, 0, 0, 28]), pixels]),
    );
    writeFileSync(
      join(at, `${part}-labels-idx1-ubyte`),
      Buffer.from([0, 0, 8, 1, 0, 0, 0, count, ...Array.from({ length: count }, (_, i) => i % 10)]),
    );
  }
}

async function paste(line: string): Promise<void> {
  const flags = SMALLER.find(([example]) => example.test(line))?.[1] ?? [];
  // The words behind the program are the flags that make it small: the shell reads the line itself, its ~ and > too.
  const shell = `node=$1 main=$2; shift 2; more="$*"; dsd() { "$node" "$main" "$@" $more; }; ${smaller(line)}`;
  const env = { HOME: folder, DSD_DATA: join(folder, 'data'), PYTHON: '/nowhere/python3' };
  const { code, stderr } = await dsd(flags, { cwd: folder, env, shell });
  assert.equal(code, 0, `${line}\n${stderr}`);
}

test('every example of every help works', async () => {
  await makePictures(join(folder, 'pictures'));
  makeFashion(join(folder, 'data', 'fashion-mnist'));
  for (const name of ['cat.jpg', 'dog.png']) copyFileSync(join(folder, 'pictures', 'train', 'dark', '0.png'), join(folder, name));
  const commands = await Promise.all([...COMMANDS.values()].map(({ load }) => load()));
  const lines = commands.flatMap(({ examples }) => examples.map(([line]) => line));
  assert.ok(commands.every(({ name, examples }) => examples.length > 0 && examples.every(([line]) => line.startsWith(`dsd ${name}`))));
  for (const line of ELSEWHERE) assert.ok(lines.includes(line), `${line} is no example any more`);
  const [training, rest] = [/^dsd train/, /^dsd (?!train)/].map((wanted) =>
    lines.filter((line) => wanted.test(line) && !ELSEWHERE.includes(line) && !line.startsWith('dsd study')),
  );
  for (const line of training ?? []) await paste(line); // in order: runs/demo and runs/fashion are what the rest is asked about
  // Two at a time: each takes a second, most of it in loading.
  const work = async (): Promise<void> => {
    for (let line = rest?.shift(); line !== undefined; line = rest?.shift()) await paste(line);
  };
  await Promise.all([work(), work()]);
});

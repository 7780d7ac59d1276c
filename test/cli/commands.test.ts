/** The built command line from end to end: one tiny run is trained, then everything is asked of it. */
import assert from 'node:assert/strict';
import { appendFileSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { loadWarning } from '../../src/cli/bench.js';
import { checkKernels } from '../../src/cli/doctor.js';
import { type NpzArray, readNpz } from '../../src/io/npz.js';
import { CLASSES, dsd, type Ended, MAIN, makePictures, TOY, workplace } from './harness.js';

const { folder, remove } = workplace();
const at = (...parts: string[]): string => join(folder, ...parts);
const json = ({ stdout }: Ended): Record<string, unknown> => JSON.parse(stdout) as Record<string, unknown>;
/** An array of an .npz that must be there. */
function array(file: string, name: string): NpzArray {
  const found = readNpz(at(file)).get(name);
  assert.ok(found, `${file} has no ${name}`);
  return found;
}
const ok = (ended: Ended): Ended => {
  assert.equal(ended.code, 0, ended.stderr);
  return ended;
};
let trained: Ended;

before(async () => {
  await makePictures(at('pictures'));
  trained = await dsd([...TOY, '--data', 'pictures', '--out', 'run', '--seed', '3'], { cwd: folder });
});
after(remove);

/** Width, height and pixels, by the decoder that made them. */
async function readPng(path: string): Promise<{ width: number; height: number; channels: number; data: Buffer }> {
  const { default: sharp } = await import('sharp');
  const { data, info } = await sharp(path).raw().toBuffer({ resolveWithObject: true });
  return { width: info.width, height: info.height, channels: info.channels, data };
}

test('help names every command and costs nothing; each command has its own, with an example', async () => {
  const { stdout } = ok(await dsd(['--help']));
  const names = [...stdout.matchAll(/^ {2}(\w+) {2,}\w/gm)].map((match) => match[1] as string);
  assert.deepEqual(names, ['train', 'sample', 'reconstruct', 'eval', 'study', 'data', 'info', 'checkpoint', 'bench', 'doctor']);
  const all = await Promise.all(names.map((name) => dsd([name, '--help'])));
  for (const [i, name] of names.entries()) {
    const { stdout: help } = ok(all[i] as Ended);
    assert.match(help, new RegExp(`^dsd ${name}\\b`, 'm'));
    assert.match(help, new RegExp(`^Examples?\\n {2}dsd ${name}`, 'm'));
    assert.match(help, /--debug/);
  }
  assert.match((all[0] as Ended).stdout, /^ {2}imagenet-256-B +ImageNet/m);
  assert.equal((await dsd(['help', 'sample'])).stdout, (await dsd(['sample', '-h'])).stdout);
  assert.match(ok(await dsd(['--version'])).stdout, /^\d+\.\d+\.\d+\n$/);
});

test('started by npx, what is there to be pasted begins with npx', async () => {
  const main = at('node_modules', '.bin', 'dsd');
  mkdirSync(at('node_modules', '.bin'), { recursive: true });
  symlinkSync(MAIN, main);
  const by = (...words: string[]): Promise<Ended> => dsd(words, { cwd: folder, main });
  assert.match(ok(await by('--help')).stdout, /^npx dsd COMMAND .*^ {2}npx dsd doctor /ms);
  assert.match(ok(await by('info', '--help')).stdout, /^npx dsd info .*^ {2}npx dsd info runs\/demo$/ms);
  assert.match((await by('info')).stderr, /^See: npx dsd info --help$/m);
  assert.match(ok(await by('train', '--resume', 'run', '--quiet')).stdout, /^next +npx dsd info run$/m);
});

test('help loads no engine, no zod, no sharp; info no engine', async () => {
  const loaded = async (words: string[], name: string): Promise<string[]> => {
    ok(await dsd(words, { cwd: folder, env: { NODE_V8_COVERAGE: at(name) } }));
    const files = readdirSync(at(name)).map((file) => JSON.parse(readFileSync(at(name, file), 'utf8')) as { result: { url: string }[] });
    return files.flatMap(({ result }) => result.map(({ url }) => url));
  };
  const help = await loaded(['--help'], 'coverage-help');
  assert.ok(help.some((url) => url.endsWith('/src/cli/main.js')));
  assert.deepEqual(
    help.filter((url) => /node_modules|\/src\/(torch|train|data|dsd|eval|io|nn)\//.test(url)),
    [],
  );
  const info = await loaded(['info', 'run'], 'coverage-info');
  assert.deepEqual(
    info.filter((url) => /node_modules\/sharp|dsd_native/.test(url)),
    [],
  );
});

test('train leaves a run folder, says on stderr what it did, on stdout what came of it', () => {
  const { stdout, stderr } = ok(trained);
  for (const name of [
    'config.json',
    'metrics.jsonl',
    'model.safetensors',
    'grids/samples-000000128.png',
    'grids/reconstructions-000000128.png',
  ]) {
    assert.ok(existsSync(at('run', name)), name);
  }
  assert.match(stderr, /^data +pictures: 48 training \+ 12 held-out pictures of 16 px in 2 classes$/m);
  assert.match(stderr, /^latent +16 tokens x 8 channels: 6\.00 pixel values to one$/m);
  assert.match(stderr, /^floor +\d+\.\d\d dB by per-patch PCA/m);
  assert.match(stderr, /^at 128: PSNR .* dB \(PCA .* dB\), effective rank \d\.\d of 7$/m);
  assert.match(stdout, /^PSNR +\d+\.\d\d dB on 12 held-out pictures; per-patch PCA of equal width \d+\.\d\d dB$/m);
  assert.match(stdout, /^next +node .*main\.js sample run$/m);
  assert.match(stdout, /^trained +128 pictures in /m);
});

test('train --json prints one document; --quiet nothing beside; the same run by --config is the same to the bit', async () => {
  const again = ok(await dsd(['train', '--config', 'run/config.json', '--out', 'again', '--json', '--quiet'], { cwd: folder }));
  assert.equal(again.stderr, '');
  const { images, psnr, weights, preset } = json(again);
  assert.deepEqual({ images, weights, preset }, { images: 128, weights: 'again/model.safetensors', preset: 'toy' });
  assert.match(trained.stdout, new RegExp(`^PSNR +${(psnr as number).toFixed(2)} dB`, 'm'));
  assert.deepEqual(readFileSync(at('again/model.safetensors')), readFileSync(at('run/model.safetensors')));
});

test('sample: a sample is the same in a grid, a folder and an .npz, whatever the batch', async () => {
  const common = ['sample', 'run', '--count', '10', '--seed', '7', '--dtype', 'float32', '--quiet'];
  ok(await dsd([...common, '--out', 'ten.npz', '--batch', '4'], { cwd: folder }));
  ok(await dsd([...common, '--out', 'ten/'], { cwd: folder }));
  const grid = ok(await dsd([...common, '--out', 'ten.png'], { cwd: folder }));
  assert.match(grid.stdout, /^ten\.png: 10 pictures in /);
  assert.match(grid.stdout, /heun, 2 steps, guidance 2 on \[0\.1, 1\], seed 7, averaged weights of 128 pictures, float32/);

  const [images, labels] = [array('ten.npz', 'arr_0'), array('ten.npz', 'arr_1')];
  assert.deepEqual([images.dtype, images.shape], ['uint8', [10, 16, 16, 3]]);
  assert.deepEqual([...(labels.data as BigInt64Array)], [0n, 1n, 0n, 1n, 0n, 1n, 0n, 1n, 0n, 1n]);

  const names = readdirSync(at('ten'));
  assert.deepEqual(names.slice(0, 3), ['000000-0-dark.png', '000001-1-light_square.png', '000002-0-dark.png']);
  assert.equal(names.length, 10);
  const sheet = await readPng(at('ten.png'));
  // Two classes make eight columns, four each, so ten samples two rows; pixels are four times as large, gaps two wide.
  assert.deepEqual([sheet.width, sheet.height, sheet.channels], [8 * 64 + 7 * 2, 2 * 64 + 2, 3]);
  for (const [i, name] of names.entries()) {
    const one = await readPng(at('ten', name));
    const same = (images.data as Uint8Array).subarray(i * 768, (i + 1) * 768);
    for (let p = 0; p < 768; p++) {
      assert.ok(Math.abs((one.data[p] as number) - (same[p] as number)) <= 1, `sample ${i}, value ${p}`);
      const [y, x, c] = [Math.floor(p / 48), Math.floor(p / 3) % 16, p % 3];
      const inSheet = ((Math.floor(i / 8) * 66 + 4 * y) * sheet.width + (i % 8) * 66 + 4 * x) * 3 + c;
      assert.equal(sheet.data[inSheet], one.data[p]);
    }
  }
});

test('sample: classes by name in any case, by number, none; other settings; JSON', async () => {
  const some = json(
    ok(
      await dsd(
        [
          'sample',
          'run/model.safetensors',
          '--class',
          'Light Square',
          '--class',
          '0',
          '--class',
          'none',
          '--count',
          '3',
          '--solver',
          'euler',
          '--steps',
          '3',
          '--guidance',
          '1',
          '--interval',
          '0.2,0.9',
          '--json',
          '--out',
          'c.npz',
        ],
        { cwd: folder },
      ),
    ),
  );
  assert.deepEqual(
    [some.classes, some.solver, some.steps, some.guidance, some.interval, some.seed],
    [[1, 0, null], 'euler', 3, 1, [0.2, 0.9], 0],
  );
  assert.deepEqual([...(array('c.npz', 'arr_1').data as BigInt64Array)], [1n, 0n, 2n]);
});

test('nothing is written over unless asked; a default name is a free one', async () => {
  const words = ['sample', 'run', '--count', '1', '--quiet'];
  for (const expected of ['samples.png', 'samples-2.png']) {
    const { stdout } = ok(await dsd(words, { cwd: folder }));
    assert.ok(stdout.startsWith(`${expected}: `), stdout);
  }
  const refused = await dsd([...words, '--out', 'samples.png'], { cwd: folder });
  assert.equal(refused.code, 2);
  assert.match(refused.stderr, /'samples\.png' exists: choose another --out, or add --overwrite/);
  ok(await dsd([...words, '--out', 'samples.png', '--overwrite'], { cwd: folder }));

  mkdirSync(at('many'));
  for (const name of ['000007-1-light_square.png', 'mine.png']) writeFileSync(at('many', name), 'x');
  assert.match((await dsd([...words, '--out', 'many'], { cwd: folder })).stderr, /the folder 'many' is not empty/);
  ok(await dsd([...words, '--out', 'many', '--overwrite'], { cwd: folder }));
  assert.deepEqual(readdirSync(at('many')), ['000000-0-dark.png', 'mine.png']); // an earlier set's sample is gone, what is not ours stays
});

test("reconstruct: the run's held-out pictures, single files of another size, a folder", async () => {
  const own = json(ok(await dsd(['reconstruct', 'run', '--json', '--out', 'own.png'], { cwd: folder })));
  assert.equal(own.pictures, 12);
  assert.match(trained.stdout, new RegExp(`^PSNR +${(own.psnr as number).toFixed(2)} dB`, 'm'));
  const sheet = await readPng(at('own.png'));
  assert.deepEqual([sheet.width, sheet.height], [8 * 64 + 7 * 4, 4 * 64 + 4]);

  const { default: sharp } = await import('sharp');
  await sharp({ create: { width: 90, height: 40, channels: 3, background: '#404040' } })
    .jpeg()
    .toFile(at('wide.jpg'));
  const files = ok(await dsd(['reconstruct', 'run', 'wide.jpg', 'pictures/train/dark/3.png', '--out', 'files.png'], { cwd: folder }));
  assert.match(
    files.stdout,
    /^wide\.jpg +\d+\.\d\d dB\npictures\/train\/dark\/3\.png +\d+\.\d\d dB\nPSNR \d+\.\d\d dB over 2 pictures\nfiles\.png: each above its reconstruction\n$/,
  );

  const loose = json(ok(await dsd(['reconstruct', 'run', 'pictures/train/dark', '--json'], { cwd: folder })));
  assert.equal((loose.each as unknown[]).length, 24);
  const set = json(ok(await dsd(['reconstruct', 'run', 'pictures', '--count', '2', '--json'], { cwd: folder })));
  assert.equal(set.pictures, 2);
});

test('data: counts by class, a contact sheet, JSON', async () => {
  const shown = ok(await dsd(['data', 'pictures', '--size', '16'], { cwd: folder }));
  assert.match(shown.stdout, /^ +class +training +held out\n0 +dark +24 +6\n1 +light square +24 +6\n +all +48 +12\n/);
  assert.ok(existsSync(at('data-pictures.png')));
  const counts = json(ok(await dsd(['data', 'pictures', '--size', '16', '--json', '--out', 'sheet.png'], { cwd: folder })));
  assert.deepEqual([counts.train, counts.heldOut, counts.contactSheet], [48, 12, 'sheet.png']);
  assert.deepEqual(
    (counts.classes as { name: string }[]).map(({ name }) => name),
    [...CLASSES],
  );
});

test('info: a run, a weights file, a preset', async () => {
  const shown = ok(await dsd(['info', 'run'], { cwd: folder })).stdout;
  assert.match(shown, /^trained +128 pictures of pictures, preset toy, paradigm dsd; averaged weights$/m);
  assert.match(shown, /^classes +2: dark, light square$/m);
  assert.match(shown, /^parameters .* for 2 classes, and /m);
  assert.match(shown, /^measured +PSNR \d+\.\d\d dB, effective rank .* on held-out pictures, when trained on 128$/m);
  assert.match(shown, /^ {2}train\.batch +16$/m);
  const file = json(ok(await dsd(['info', 'run/model.safetensors', '--json'], { cwd: folder })));
  assert.deepEqual([file.images, file.weights, file.latentShape], [128, 'average', [16, 8]]);
  const preset = ok(await dsd(['info', '--preset', 'imagenet-256-B'])).stdout;
  assert.match(preset, /^parameters +204\.7M/m);
  assert.match(preset, /^latent +256 x 32: 24\.0 pixel values to one$/m);
  assert.match(preset, /^cost: /m);
  // What is trained is what was foretold: openmoji has nine classes, of colour.
  const demo = json(ok(await dsd(['info', '--preset', 'demo', '--json'])));
  assert.deepEqual([demo.classCount, demo.picture], [9, [32, 32, 3]]);
  const fashion = ok(await dsd(['info', '--preset', 'fashion-mnist'])).stdout;
  assert.match(fashion, /^parameters .* for 10 classes, and .*\npicture +32 x 32 x 1 /m);
  assert.match(preset, /^parameters .* for 1,000 classes/m);
});

test('info says when it was measured, which may be before the weights were saved', async () => {
  cpSync(at('run'), at('later'), { recursive: true });
  appendFileSync(
    at('later', 'metrics.jsonl'),
    `{"kind":"evaluate","images":96,"psnr":20.5,"effectiveRank":5,"latentDeviation":1}\n{"kind":"tr`,
  );
  const shown = ok(await dsd(['info', 'later'], { cwd: folder })).stdout;
  assert.match(shown, /^trained +128 pictures /m);
  assert.match(shown, /^measured +PSNR 20\.50 dB, effective rank 5\.0 of 7 on held-out pictures, when trained on 96$/m);
});

test('eval: a table with its protocol, and the same as JSON', async () => {
  const words = ['eval', 'run', '--count', '8', '--guidance', '1,3', '--batch', '5', '--classifier-steps', '2', '--features', 'classifier'];
  const shown = ok(await dsd(words, { cwd: folder })).stdout;
  assert.match(shown, /^reconstruction +PSNR \d+\.\d\d dB, SSIM -?0\.\d{3} on 12 held-out pictures; per-patch PCA.*\n +rFD-classifier \d/m);
  assert.match(shown, /^latent +effective rank \d\.\d of 7, deviation \d/m);
  assert.match(
    shown,
    /^by classifier +FD-classifier +kernel x 1000 +precision +recall +in the asked class\nguidance 1 .*%\nguidance 3 .*%\nreal pictures \(8\) .*%$/m,
  );
  assert.match(shown, /^8 samples a row: averaged weights, heun, 2 steps, guidance on \[0\.1, 1\], labels balanced/m);
  assert.match(
    shown,
    /^FD-classifier: 256 features, classifier trained for 2 steps on .*; against 12 pictures of .*; real pictures of .*training part$/m,
  );
  const report = json(ok(await dsd([...words, '--json', '--quiet'], { cwd: folder })));
  assert.deepEqual(
    (report.samples as { sampler: { guidance: number }; count: number }[]).map(({ sampler, count }) => [sampler.guidance, count]),
    [
      [1, 8],
      [3, 8],
    ],
  );
});

test('eval: a sweep has a row for each combination, and a plot by each network', async () => {
  const judges = ['--features', 'classifier', '--classifier-steps', '1', '--count', '6', '--real', '8', '--quiet'];
  const words = ['eval', 'run', ...judges, '--sweep', 'guidance=1,2', '--sweep', 'steps=1,2', '--plot', 'swept.png'];
  const shown = ok(await dsd(words, { cwd: folder })).stdout;
  for (const row of ['guidance 1, 1 step', 'guidance 1, 2 steps', 'guidance 2, 1 step', 'guidance 2, 2 steps'])
    assert.match(shown, new RegExp(`^${row} .*%$`, 'm'));
  assert.match(shown, /^6 samples a row: averaged weights, heun, guidance on \[0\.1, 1\], labels/m, 'what is swept is not said of all');
  assert.match(shown, /^swept\.png\nswept\.svg\n$/m);
  assert.match(readFileSync(at('swept.svg'), 'utf8'), /FD-classifier by guidance/);
  assert.equal((await readPng(at('swept.png'))).width, 2400);
  assert.equal((await dsd(words, { cwd: folder })).code, 2, 'nothing is written over unasked');
});

test('eval: pictures of any program, in an .npz or a folder, against data or a file', async () => {
  ok(await dsd(['sample', 'run', '--count', '8', '--steps', '1', '--out', 'judged.npz', '--quiet'], { cwd: folder }));
  ok(await dsd(['sample', 'run', '--count', '8', '--steps', '1', '--out', 'judged/', '--quiet'], { cwd: folder }));
  const copies = ['--neighbours', 'neighbours.png'];
  const against = ['--data', 'pictures', '--features', 'nsfwjs-mixed7,classifier', '--classifier-steps', '2', '--quiet'];
  const words = ['eval', 'judged.npz', ...against, ...copies, '--write-reference', 'reference.npz'];
  const shown = ok(await dsd(words, { cwd: folder })).stdout;
  assert.match(shown, /^by nsfwjs-mixed7 +FD-nsfwjs-mixed7 +kernel x 1000 +precision +recall\njudged\.npz .*%\nreal pictures \(8\) .*%$/m);
  assert.match(shown, /^nearest of 48 training pictures by nsfwjs-mixed7: median distance \d.* from samples, \d.* from held-out pictures/m);
  assert.ok((await readPng(at('neighbours.png'))).width > 7 * 64, 'a sample, a gap and five pictures');
  assert.match(shown, /^8 pictures of judged\.npz, seed 0, on cpu$/m);
  assert.match(shown, /^warning: FD-nsfwjs-mixed7: 8 pictures for 768 features/m);
  type Found = { samples: { accuracy?: number; distances: { name: string; frechet: number }[] } };
  const distances = async (...more: string[]) =>
    json(ok(await dsd(['eval', ...more, '--json', '--quiet'], { cwd: folder }))) as unknown as Found;
  const named = await distances('judged', ...against);
  const [first] = named.samples.distances;
  assert.ok(named.samples.accuracy !== undefined, 'file names tell the classes');
  const some = ok(await dsd(['eval', 'judged.npz', '--count', '5', '--reference', 'reference.npz', '--quiet'], { cwd: folder })).stdout;
  assert.match(some, /^5 of 8 pictures, evenly spread \(--count takes more\) of judged\.npz, seed 0, on cpu$/m);
  const by = await distances('judged.npz', '--reference', 'reference.npz');
  assert.deepEqual(
    by.samples.distances.map(({ name }) => name),
    ['FD-nsfwjs-mixed7'],
    'the file says by which network',
  );
  assert.ok(Math.abs((by.samples.distances[0]?.frechet as number) / (first?.frechet as number) - 1) < 1e-3, 'a folder, or an .npz');
});

test('bench: calls and steps, with or without a PyTorch to compare with', async () => {
  const ended = ok(await dsd(['bench', '--steps', '2', '--json', '--quiet'], { env: { PYTHON: '/nowhere/python3' } }));
  const alone = json(ended);
  assert.equal(alone.peer, null);
  const warning = loadWarning(alone.loadBefore as number);
  assert.equal(ended.stderr, warning === undefined ? '' : `${warning}\n`);
  const rows = Object.entries(alone).flatMap(([part, found]) =>
    part === 'calls' || part === 'products' || part === 'steps' ? (found as Record<string, unknown>[]) : [],
  );
  assert.equal(rows.length, 4 + 2 + 4);
  for (const { name, ours, peer, ratio } of rows) {
    assert.ok((ours as number) > 0, `${name}`);
    assert.deepEqual([peer, ratio], [null, null]);
  }
  for (const { ours, range } of alone.steps as { ours: number; range: [number, number] }[])
    assert.ok(range[0] <= ours && ours <= range[1], `${ours} in ${range}`);
  const shown = ok(await dsd(['bench', 'ops', '--quiet'])).stdout;
  assert.match(shown, /^peer: (PyTorch \d|none, since ).*^nanoseconds a call .*^add +\d.*^GFLOP\/s/ms);
  assert.doesNotMatch(shown, /training step/);
});

test('doctor: all that training needs is here', async () => {
  const report = json(ok(await dsd(['doctor', '--json'])));
  assert.equal(report.ready, true);
  const { float32, bfloat16, call } = report.speed as Record<string, number>;
  for (const [name, value] of Object.entries({ float32, bfloat16, call })) assert.ok((value as number) > 0, name);
  assert.equal(checkKernels(undefined).state, 'ok');
  const kernels = checkKernels('NVRTC was not found');
  assert.deepEqual([kernels.state, kernels.found], ['bad', 'cannot be compiled for the GPU: NVRTC was not found']);
  assert.match(ok(await dsd(['doctor'])).stdout, /^ok +libtorch +\d[\s\S]*\nTraining can run here, on /m);
});

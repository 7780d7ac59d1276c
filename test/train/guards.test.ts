/** What a run must not be given, or lose, in silence: other pictures, other weights, another trainer's work, its own when it ends badly. */

import assert from 'node:assert/strict';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { FailureError, InterruptedError } from '../../src/core/errors.js';
import { encodePng } from '../../src/data/picture.js';
import { type Disk, DiskError, disk } from '../../src/io/disk.js';
import { type SafeTensor, writeSafetensors } from '../../src/io/safetensors.js';
import { setThreads } from '../../src/torch/index.js';
import { Checkpoints, readState } from '../../src/train/checkpoints.js';
import { type RunConfig, type RunSettings, resolveConfig } from '../../src/train/config.js';
import { findPreset } from '../../src/train/presets.js';
import { differences, findResume, lastSettings, type Resume, resumedConfig } from '../../src/train/resume.js';
import { RunFolder } from '../../src/train/run.js';
import { Saver } from '../../src/train/saver.js';
import { CLASSES, dsd, makePictures, workplace } from '../cli/harness.js';
import { attempt } from './attempt.js';

setThreads(1);
const { folder, remove } = workplace();
const at = (...parts: string[]): string => join(folder, ...parts);
before(() => makePictures(at('pictures')));
after(remove);

const settings = (over: RunSettings = {}): RunConfig =>
  resolveConfig(
    findPreset('toy').settings,
    {
      data: { source: at('pictures'), workers: 0 },
      train: { images: 64, batch: 16 },
      log: { every: 16, evaluate: 10_000, save: 10_000 },
      sample: { steps: 1 },
      checkpoint: { minutes: 1000 },
    },
    over,
  );

/** Trains, stops at `stopAt` pictures, and returns the error if there was one. */
async function go(out: string, { config, ...options }: { config?: RunConfig; resume?: Resume; stopAt?: number } = {}): Promise<unknown> {
  return (await attempt(at(out), config ?? options.resume?.state.config ?? settings(), options)).error;
}

/** A run stopped at 32 of 64 pictures. */
async function stopped(out: string, config = settings()): Promise<Resume> {
  assert.ok((await go(out, { config, stopAt: 32 })) instanceof InterruptedError);
  return findResume(at(out));
}

const refused = (error: unknown, name: string, message: RegExp): void => {
  assert.ok(error instanceof Error && error.name === name, String(error));
  assert.match(error.message, message);
};

test('as many pictures of other names, or of other classes, are refused; the same ones elsewhere are not', async () => {
  const resume = await stopped('names');
  for (const [name, change] of [
    ['renamed', (root: string) => renameSync(join(root, 'train', 'dark', '3.png'), join(root, 'train', 'dark', '77.png'))],
    [
      'swapped',
      (root: string) => {
        renameSync(join(root, 'train', 'dark', '3.png'), join(root, 'train', 'light square', '77.png'));
        renameSync(join(root, 'train', 'light square', '9.png'), join(root, 'train', 'dark', '78.png'));
      },
    ],
    ['held out', (root: string) => renameSync(join(root, 'val', 'dark', '25.png'), join(root, 'val', 'dark', '77.png'))],
  ] as const) {
    cpSync(at('pictures'), at(name), { recursive: true });
    change(at(name));
    const error = await go('names', { resume, config: resumedConfig(resume.state.config, { data: { source: at(name) } }) });
    refused(error, 'UsageError', /are as many as those that the run began with, and have other names or classes/);
  }
  cpSync(at('pictures'), at('moved'), { recursive: true });
  assert.equal(await go('names', { resume, config: resumedConfig(resume.state.config, { data: { source: at('moved') } }) }), undefined);
});

/** A VGG16 of two channels a layer, and LPIPS's weights for it. */
function perceptualWeights(path: string, value: number): void {
  const tensors = new Map<string, SafeTensor>();
  const add = (name: string, shape: number[]): void => {
    const values = new Float32Array(shape.reduce((a, b) => a * b)).map((_, i) => value * (((i * 7) % 5) - 1));
    tensors.set(name, { dtype: 'F32', shape, data: new Uint8Array(values.buffer) });
  };
  for (const n of [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]) {
    add(`features.${n}.weight`, [2, n === 0 ? 3 : 2, 3, 3]);
    add(`features.${n}.bias`, [2]);
  }
  for (let i = 0; i < 5; i++) add(`lin${i}.model.1.weight`, [1, 2, 1, 1]);
  writeSafetensors(path, tensors);
}

test('the perceptual weights may lie elsewhere when a run goes on, and may not be others', async () => {
  perceptualWeights(at('vgg.safetensors'), 0.1);
  const objective = { weights: { perceptual: 0.5 }, perceptual: at('vgg.safetensors') };
  const resume = await stopped('perceptual', settings({ objective }));
  renameSync(at('vgg.safetensors'), at('moved.safetensors'));
  perceptualWeights(at('vgg.safetensors'), 0.2);
  refused(await go('perceptual', { resume }), 'UsageError', /vgg\.safetensors' are not those that the run began with/);
  const config = resumedConfig(resume.state.config, { objective: { perceptual: at('moved.safetensors') } });
  assert.equal(await go('perceptual', { resume, config }), undefined);
});

test('what another trainer did between the search for a checkpoint and the lock is not set aside', async () => {
  const early = await stopped('raced');
  assert.equal(await go('raced', { resume: findResume(at('raced')) }), undefined);
  const before = readFileSync(at('raced', 'metrics.jsonl'));
  refused(await go('raced', { resume: early }), 'FailureError', /gone on with meanwhile.*000000000064' is\. Try again/);
  assert.equal(findResume(at('raced')).state.images, 64);
  assert.ok(readFileSync(at('raced', 'metrics.jsonl')).equals(before));
  assert.ok(!readdirSync(at('raced')).some((name) => name.startsWith('lock')));
});

test('what a run was asked for is not forgotten when it is killed before its next checkpoint', async () => {
  const before = await stopped('asked');
  const longer = resumedConfig(before.state.config, { train: { images: 96 } });
  cpSync(before.path, at('kept'), { recursive: true });
  assert.ok((await go('asked', { resume: before, config: longer, stopAt: 48 })) instanceof InterruptedError);
  // As if it had been killed: what it wrote before its first step is there, its checkpoint is not.
  rmSync(at('asked', 'checkpoints'), { recursive: true });
  cpSync(at('kept'), before.path, { recursive: true });
  assert.deepEqual(lastSettings(before), longer);
  const { code, stdout, stderr } = await dsd(['train', '--resume', 'asked', '--device', 'cpu', '--dtype', 'float32'], { cwd: folder });
  assert.equal(code, 0, stderr);
  assert.match(stdout, /trained +96 pictures, 64 of them now/);
  // What is no configuration, or another run's, is not gone by.
  for (const text of ['', 'null', '[]', '{"train":', JSON.stringify({ ...longer, train: { ...longer.train, seed: 9 } })]) {
    writeFileSync(at('asked', 'config.json'), text);
    assert.deepEqual(lastSettings(before), before.state.config);
  }
  rmSync(at('asked', 'config.json'));
  assert.deepEqual(lastSettings(before), before.state.config);
});

test('a run is not made shorter than it is', async () => {
  const resume = await stopped('shorter');
  const shorter = resumedConfig(resume.state.config, { train: { images: 16 } });
  refused(await go('shorter', { resume, config: shorter }), 'UsageError', /trained on 32 pictures already, and train\.images=16/);
  const now = resumedConfig(resume.state.config, { train: { images: 32 } });
  assert.equal(await go('shorter', { resume, config: now }), undefined);
});

test('pictures of which PCA loses nothing make checkpoints that can be gone on from', async () => {
  for (const part of ['train', 'val'])
    for (const name of CLASSES) {
      mkdirSync(at('flat', part, name), { recursive: true });
      for (let i = 0; i < 8; i++)
        writeFileSync(at('flat', part, name, `${i}.png`), await encodePng(new Uint8Array(16 * 16 * 3).fill(128), 16, 16, 3));
    }
  const resume = await stopped('flat run', settings({ data: { source: at('flat') } }));
  assert.equal(resume.state.pcaPsnr, null, 'its squared error is 0');
  assert.equal(await go('flat run', { resume }), undefined);
});

test('a checkpoint is gone on from where a run has it and under its own name', async () => {
  const { path } = await stopped('placed');
  cpSync(path, at('backup', 'copy'), { recursive: true });
  assert.throws(() => findResume(at('backup', 'copy')), { name: 'UsageError', message: /does not lie where a run has its checkpoints/ });
  cpSync(path, `${path}.damaged`, { recursive: true });
  assert.throws(() => findResume(`${path}.damaged`), { name: 'UsageError', message: /does not lie where/ });
  assert.throws(
    () => findResume(at('placed', 'checkpoints')),
    (error) => {
      refused(error, 'FailureError', /is it a run's folder\?$/);
      return true;
    },
  );
  renameSync(path, at('placed', 'checkpoints', '000000000048'));
  for (const what of [at('placed'), at('placed', 'checkpoints', '000000000048')])
    assert.throws(() => findResume(what), { name: 'FailureError', message: /is of 32 pictures by what is in it.*Give it back its own/ });
});

test('pruning by hand trusts a checkpoint only when its every byte was read', async () => {
  await go('pruned', { config: settings({ checkpoint: { minutes: 0, keep: 9 } }) });
  const checkpoints = new Checkpoints(at('pruned'));
  const all = checkpoints.list();
  const [newest, second] = all;
  assert.ok(newest && second);
  const file = join(newest.path, 'online.safetensors');
  const spoilt = readFileSync(file);
  spoilt[5000] = (spoilt[5000] ?? 0) ^ 1;
  writeFileSync(file, spoilt);
  const { code, stderr } = await dsd(['checkpoint', 'prune', 'pruned'], { cwd: folder });
  assert.equal(code, 0, stderr);
  assert.deepEqual(
    checkpoints.list().map(({ images }) => images),
    [newest.images, second.images],
  );
  assert.equal(findResume(at('pruned')).state.images, second.images);
});

test('a checkpoint that goes while it is looked at is not among those that there are', async () => {
  await go('watched', { config: settings({ checkpoint: { minutes: 0, keep: 9 } }) });
  const [newest, ...others] = new Checkpoints(at('watched')).list();
  assert.ok(newest);
  for (const moment of ['exists', 'list', 'stat', 'readFile'] as const) {
    const copy = at(`watched ${moment}`);
    cpSync(at('watched'), copy, { recursive: true });
    const path = new Checkpoints(copy).path(newest.images);
    const pruned: Disk = {
      ...disk,
      [moment]: (what: string, ...rest: never[]) => {
        if (what.startsWith(path)) rmSync(path, { recursive: true, force: true });
        return (disk[moment] as (what: string, ...rest: never[]) => unknown)(what, ...rest);
      },
    };
    assert.deepEqual(
      new Checkpoints(copy, pruned).list().map(({ images }) => images),
      others.map(({ images }) => images),
      moment,
    );
  }
});

test('a run that is reopened is swept everywhere, and is not left locked when that fails', async () => {
  await stopped('swept');
  const left = [at('swept', '.dsd-00ff.tmp'), at('swept', 'grids', '.dsd-00fe.tmp'), at('swept', 'checkpoints', '.dsd-00fd.tmp')];
  for (const path of left) writeFileSync(path, 'x');
  const failing: Disk = {
    ...disk,
    mkdir: (path) => {
      throw new DiskError('full', 'ENOSPC', path, undefined);
    },
  };
  assert.throws(() => RunFolder.reopen(at('swept'), failing), DiskError);
  RunFolder.reopen(at('swept')).close();
  for (const path of left) assert.ok(!existsSync(path), path);
});

test("a run that could not be begun takes nothing of another's that was begun meanwhile", () => {
  const racing: Disk = {
    ...disk,
    mkdir: (path) => {
      disk.mkdir(path);
      writeFileSync(at('theirs', 'config.json'), '{}');
    },
    createNew: (path) => {
      throw new DiskError('full', 'ENOSPC', path, undefined);
    },
  };
  assert.throws(() => RunFolder.create(at('theirs'), racing), DiskError);
  assert.ok(existsSync(at('theirs', 'config.json')));
  assert.throws(() => RunFolder.create(at('mine'), { ...disk, createNew: racing.createNew }), DiskError);
  assert.ok(!existsSync(at('mine')), 'an empty one goes');
});

test('another processor is told of; the type computed in may change, and is told of too', () => {
  const ranOn = { libtorch: '1.13.1', device: 'cpu', compute: 'float32', threads: 2, micro: 16 } as const;
  const known = { ...ranOn, processor: 'Old', blas: 'a.so' };
  assert.deepEqual(differences(known, { ...known, processor: 'New' }), ['the processor was Old and is New']);
  assert.deepEqual(differences(known, { ...known, blas: 'b.so' }), ['the BLAS library was a.so and is b.so']);
  assert.deepEqual(differences(ranOn, known), [], 'of a run that did not write it down nothing is said');
  const state = readState(findResume(at('shorter')).path);
  assert.ok(state.ranOn.processor !== undefined && state.ranOn.blas !== undefined);
  assert.equal(resumedConfig(state.config, { train: { dtype: 'float32' } }).train.dtype, 'float32');
});

test('a checkpoint that was written takes no memory any more', async () => {
  const saver = new Saver(at('memory'), 1);
  const MiB = 2 ** 20;
  const resident = (): number => process.memoryUsage.rss() / MiB;
  const snapshot = (images: number, size: number) => ({
    images,
    files: new Map([['online.safetensors', Array.from({ length: size }, () => new Uint8Array(64 * MiB).fill(images))]]),
  });
  after(() => saver.close());
  saver.save(snapshot(1, 0)); // starts the thread
  await saver.settle();
  const before = resident();
  saver.save(snapshot(2, 3)); // pieces so large that the system has them back at once
  assert.ok(resident() > before + 150);
  await saver.settle();
  for (let wait = 0; wait < 100 && resident() > before + 50; wait++) await sleep(50); // the thread frees it in its own time
  assert.ok(resident() < before + 50, `${before} MiB before, ${resident()} after`);
});

test('a message of no checkpoint advises to remove only what is surely a run', () => {
  mkdirSync(at('empty run'));
  writeFileSync(at('empty run', 'config.json'), '{}');
  assert.throws(() => findResume(at('empty run')), FailureError);
  assert.throws(() => findResume(at('empty run')), { message: /or remove it$/ });
});

/** Going on with a run, in one process: what a checkpoint keeps, which one is taken, what is refused, and what happens when things go wrong. */

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { FailureError, InterruptedError, UsageError } from '../../src/core/errors.js';
import { disk } from '../../src/io/disk.js';
import { acquireLock } from '../../src/io/lock.js';
import { readSafetensors } from '../../src/io/safetensors.js';
import { setThreads } from '../../src/torch/index.js';
import { Checkpoints, readState } from '../../src/train/checkpoints.js';
import { type RunConfig, type RunSettings, resolveConfig } from '../../src/train/config.js';
import { findPreset } from '../../src/train/presets.js';
import { differences, findResume, resumedConfig } from '../../src/train/resume.js';
import { RunFolder } from '../../src/train/run.js';
import { makePictures, workplace } from '../cli/harness.js';
import { liveTensors } from '../torch/live.js';
import { type Attempt, attempt, numbers } from './attempt.js';

setThreads(1);
const { folder, remove } = workplace();
const at = (...parts: string[]): string => join(folder, ...parts);
before(() => makePictures(at('pictures')));
after(remove);

const settings = (over: RunSettings = {}) =>
  resolveConfig(
    findPreset('toy').settings,
    {
      data: { source: at('pictures'), workers: 0 },
      train: { images: 160, batch: 16 },
      log: { every: 48, evaluate: 96, save: 1000 },
      sample: { steps: 2 },
      checkpoint: { minutes: 1000 },
    },
    over,
  );

/** Trains in the folder of the tests. */
function go(
  out: string,
  options: { config?: RunConfig; resume?: boolean; stopAt?: number; compute?: 'float32' | 'bfloat16' } = {},
): Promise<Attempt> {
  const resume = options.resume ? findResume(at(out)) : undefined;
  const { stopAt, compute } = options;
  return attempt(at(out), options.config ?? resume?.state.config ?? settings(), {
    ...(resume ? { resume } : {}),
    ...(stopAt === undefined ? {} : { stopAt }),
    compute,
  });
}

const same = (a: string, b: string, images: number): void => {
  for (const name of ['online', 'target', 'average', 'optimizer']) {
    const file = [`checkpoints`, String(images).padStart(12, '0'), `${name}.safetensors`];
    assert.deepEqual(readSafetensors(at(a, ...file)).tensors, readSafetensors(at(b, ...file)).tensors, name);
  }
  assert.deepEqual(readSafetensors(at(a, 'model.safetensors')).tensors, readSafetensors(at(b, 'model.safetensors')).tensors);
};
for (const compute of ['float32', 'bfloat16'] as const) {
  test(`a run that is stopped goes on to the same tensors and the same lines, and leaves no tensor behind, in ${compute}`, async () => {
    const [whole, cut] = compute === 'float32' ? ['whole', 'stopped'] : ['whole-narrow', 'stopped-narrow'];
    const live = await liveTensors();
    assert.equal((await go(whole, { compute })).error, undefined);
    assert.equal(await liveTensors(), live);
    const stopped = await go(cut, { stopAt: 48, compute });
    assert.ok(stopped.error instanceof InterruptedError, String(stopped.error));
    assert.match(stopped.error.message, /stopped after \d+ of 160 pictures; nothing is lost$/);
    const resumed = await go(cut, { resume: true, compute });
    assert.equal(resumed.error, undefined);
    const [start] = resumed.events;
    assert.ok(start?.kind === 'start' && start.resumed);
    assert.deepEqual(start.resumed.differences, []);
    same(whole, cut, 160);
    assert.deepEqual(numbers(at(cut)), numbers(at(whole)));
    assert.equal(await liveTensors(), live);
  });
}

test('lines written after the checkpoint are taken back, a last line that a crash cut is too', async () => {
  assert.ok((await go('cut', { stopAt: 96 })).error instanceof InterruptedError);
  const file = at('cut', 'metrics.jsonl');
  const [line] = readFileSync(file, 'utf8').split('\n');
  writeFileSync(file, `${readFileSync(file, 'utf8')}${line?.replace('"images":48', '"images":144')}\n{"kind":"train","ima`);
  assert.equal((await go('cut', { resume: true })).error, undefined);
  same('whole', 'cut', 160);
  assert.deepEqual(numbers(at('cut')), numbers(at('whole')));
  writeFileSync(file, `garbage\n${readFileSync(file, 'utf8')}`);
  const again = await go('cut', { resume: true });
  assert.ok(again.error instanceof FailureError && /line 1 is no JSON/.test(again.error.message), String(again.error));
});

test('the newest whole checkpoint is taken, and a damaged newer one is put aside and told of', async () => {
  assert.equal((await go('damaged', { config: settings({ checkpoint: { minutes: 0, keep: 4 } }) })).error, undefined);
  const checkpoints = new Checkpoints(at('damaged'));
  const kept = checkpoints.list().map(({ images }) => images);
  assert.equal(kept[0], 160);
  assert.deepEqual(
    kept,
    [...new Set(kept)].sort((a, b) => b - a),
    'newest first',
  );
  const [newest, second] = checkpoints.list();
  assert.ok(newest && second);
  const file = join(newest.path, 'online.safetensors');
  const spoilt = readFileSync(file);
  spoilt[5000] = (spoilt[5000] ?? 0) ^ 1;
  writeFileSync(file, spoilt);
  const told: string[] = [];
  const found = findResume(at('damaged'), { onDamaged: ({ problem }) => told.push(problem ?? '') });
  assert.equal(found.path, second.path);
  assert.match(told.join(), /online\.safetensors/);
  assert.equal((await go('damaged', { resume: true })).error, undefined);
  assert.ok(existsSync(`${newest.path}.damaged`));
  same('whole', 'damaged', 160);
  for (const each of checkpoints.list()) rmSync(join(each.path, 'manifest.json'));
  assert.throws(() => findResume(at('damaged')), {
    name: 'FailureError',
    message: /no whole checkpoint:\n.*It is not begun anew by itself/s,
  });
});

test('nothing is begun anew in silence, and an older checkpoint does not write over newer ones', async () => {
  mkdirSync(at('bare'));
  assert.throws(() => findResume(at('bare')), { name: 'FailureError', message: /no checkpoint to go on from.*not begun anew/ });
  assert.throws(() => findResume(at('absent')), { name: 'UsageError', message: /no run folder/ });
  assert.throws(() => findResume('latest'), { name: 'UsageError', message: /--out FOLDER/ });
  assert.throws(() => RunFolder.check(at('whole')), { name: 'UsageError', message: /go on with it by --resume latest/ });
  assert.equal((await go('older', { config: settings({ checkpoint: { minutes: 0, keep: 3 } }) })).error, undefined);
  const [newest, older] = new Checkpoints(at('older')).list();
  assert.ok(newest && older);
  assert.throws(() => findResume(older.path), { name: 'UsageError', message: /is not the newest checkpoint/ });
  assert.equal(findResume(newest.path).state.images, 160);
  rmSync(newest.path, { recursive: true });
  assert.equal(findResume(older.path).state.images, older.images);
});

test('a run keeps its settings for life, but for its length and what it writes', () => {
  const saved = settings();
  const longer = resumedConfig(saved, {
    train: { images: 320, microBatch: 4, graph: false },
    log: { every: 16 },
    data: { source: 'elsewhere' },
  });
  assert.deepEqual([longer.train.images, longer.train.batch, longer.data.source], [320, 16, 'elsewhere']);
  for (const [name, over] of [
    ['train.batch', { train: { batch: 32 } }],
    ['train.seed', { train: { seed: 5 } }],
    ['model.width', { model: { width: 64 } }],
    ['objective.mask', { objective: { mask: 0.5 } }],
    ['data.flip', { data: { flip: !saved.data.flip } }],
  ] as const)
    assert.throws(() => resumedConfig(saved, over), { name: 'UsageError', message: new RegExp(`keeps its ${name}, .*asked for was`) });
  const ranOn = { libtorch: '1.13.1', device: 'cpu', compute: 'float32', threads: 2, micro: 16 } as const;
  assert.deepEqual(differences(ranOn, { ...ranOn, threads: 4 }), ['the number of threads was 2 and is 4']);
});

test('other pictures than the run began with are refused', async () => {
  assert.ok((await go('data', { stopAt: 48 })).error instanceof InterruptedError);
  await makePictures(at('more'));
  renameSync(at('more', 'train', 'dark', '3.png'), at('more', 'train', 'light square', '99.png'));
  rmSync(at('more', 'train', 'dark', '4.png'));
  const state = readState(findResume(at('data')).path);
  const other = await go('data', { resume: true, config: resumedConfig(state.config, { data: { source: at('more') } }) });
  assert.ok(other.error instanceof UsageError && /47 \+ 12/.test(other.error.message), String(other.error));
});

test('one writer a run: a second is told who the first is', async () => {
  const lock = acquireLock(at('whole'), 'a test');
  const refused = await go('whole', { resume: true });
  assert.ok(refused.error instanceof FailureError && refused.error.message.includes(`${process.pid}`), String(refused.error));
  lock.release();
  assert.equal((await go('whole', { resume: true })).error, undefined, 'a complete run is opened and left as it is');
  assert.deepEqual(
    readdirSync(at('whole')).filter((name) => name.startsWith('lock')),
    [],
  );
});

test('a checkpoint of another version, or with a tensor of another shape, is refused by name', async () => {
  assert.ok((await go('old', { stopAt: 48 })).error instanceof InterruptedError);
  const { path } = findResume(at('old'));
  const state = JSON.parse(readFileSync(join(path, 'state.json'), 'utf8')) as Record<string, unknown>;
  const files = new Map(
    readdirSync(path)
      .filter((name) => name !== 'manifest.json' && name !== 'state.json')
      .map((name) => [name, readFileSync(join(path, name))] as const),
  );
  const { writeBundle } = await import('../../src/io/bundle.js');
  const rewrite = (text: string): void => {
    disk.remove(path);
    writeBundle(path, new Map<string, Uint8Array | string>([...files, ['state.json', text]]));
  };
  rewrite(JSON.stringify({ ...state, format: 'dsd-checkpoint-9' }));
  assert.throws(() => findResume(at('old')), {
    name: 'FailureError',
    message: /not one that this version of dsd knows: state\.json, format/,
  });
  const config = state.config as Record<string, Record<string, unknown>>;
  rewrite(JSON.stringify({ ...state, config: { ...config, model: { ...config.model, prototypes: 32 } } }));
  const wrong = await go('old', { resume: true });
  assert.ok(wrong.error instanceof FailureError, String(wrong.error));
  assert.match(wrong.error.message, /tensor '.*' is F32 \[.*\], wanted F32 \[.*\]: the checkpoint is of another network/);
});

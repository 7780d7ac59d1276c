/**
 * A training process is killed at random moments and goes on each time; at the end every tensor, every logged number and every picture equals
 * the uninterrupted run's, bit for bit. A few kills here; KILLS=100 for many.
 */

import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { key, uniform } from '../../src/core/random.js';
import { Checkpoints } from '../../src/train/checkpoints.js';
import { dsd, makePictures, start, workplace } from '../cli/harness.js';
import { numbers } from './attempt.js';

const KILLS = Number(process.env.KILLS ?? 5);
const DEVICE = process.env.KILL_DEVICE ?? 'cpu';
/** Steps that a process gets done between its start and its end, on average and at least as many. */
const STEPS_A_KILL = Number(process.env.KILL_STEPS ?? 40);
/** Milliseconds that a process may train before it is killed. A GPU's first step takes seconds. */
const MOST_TRAINING = Number(process.env.KILL_MS ?? 800);

/** Tests run without a GPU; this one on one where asked to. */
const env = DEVICE === 'cpu' ? {} : { CUDA_VISIBLE_DEVICES: process.env.CUDA_VISIBLE_DEVICES ?? '0' };

const { folder, remove } = workplace();
before(() => makePictures(join(folder, 'pictures')));
after(remove);

const batch = 8;
const images = batch * STEPS_A_KILL * (KILLS + 1);
const words = [
  ...['train', '--preset', 'toy', '--data', 'pictures', '--device', DEVICE, '--deterministic', '--set', `train.images=${images}`],
  ...['--set', `train.batch=${batch}`, '--set', 'log.every=80', '--set', 'log.evaluate=400', '--set', `log.save=${batch * 150}`],
  ...['--set', 'sample.steps=2', '--set', 'data.workers=1', '--set', 'checkpoint.minutes=0'],
];

test(`${KILLS} kills at random moments change no bit of a run`, async () => {
  const whole = start([...words, '--out', 'whole'], { cwd: folder, env });
  const began = performance.now();
  await whole.said('run  '); // said just before the first step
  const toFirst = performance.now() - began;
  const ended = await whole.ended;
  assert.equal(ended.code, 0, ended.stderr);

  const seed = key(Number(process.env.KILL_SEED ?? 7), 'kills');
  let kills = 0;
  let early = 0;
  for (let attempt = 0; kills < KILLS; attempt++) {
    const fresh = new Checkpoints(join(folder, 'killed')).list().length === 0;
    if (fresh && existsSync(join(folder, 'killed'))) {
      // Killed before its first checkpoint: nothing to go on from, and it says so rather than begin anew.
      const refused = await dsd(['train', '--resume', 'killed'], { cwd: folder, env });
      assert.equal(refused.code, 1, refused.stderr);
      assert.match(refused.stderr, /no checkpoint to go on from/);
      rmSync(join(folder, 'killed'), { recursive: true });
    }
    const running = start(fresh ? [...words, '--out', 'killed'] : ['train', '--resume', 'killed', '--device', DEVICE], {
      cwd: folder,
      env,
    });
    // Every third kill comes while a process starts, the others while it trains.
    // The first lives long, so that there is something to go on from.
    const at = attempt === 0 ? 1 : uniform(seed, attempt, 0);
    if (attempt % 3 === 2) await sleep(toFirst * at);
    else {
      await running.said('run  ');
      await sleep(MOST_TRAINING * at);
    }
    running.kill('SIGKILL');
    const killed = await running.ended;
    assert.equal(killed.signal, 'SIGKILL', `it ended before it was killed: ${killed.stderr}`);
    kills++;
    if (!killed.stderr.includes('run  ')) early++;
  }
  if (new Checkpoints(join(folder, 'killed')).list().length === 0) assert.fail('no process lived long enough to save a checkpoint');
  const last = await dsd(['train', '--resume', 'killed', '--device', DEVICE], { cwd: folder, env });
  assert.equal(last.code, 0, last.stderr);
  assert.match(last.stderr, /resumed +after [\d,]+ pictures\n/, 'and nothing is said of differences');
  console.log(`# ${kills} kills, ${early} of them before the process's first step; ${images / batch} steps in all`);

  assert.deepEqual(numbers(join(folder, 'killed')), numbers(join(folder, 'whole')));
  for (const file of ['online', 'target', 'average', 'optimizer'].map((name) =>
    join('checkpoints', String(images).padStart(12, '0'), `${name}.safetensors`),
  ))
    assert.ok(bytes('killed', file).equals(bytes('whole', file)), file);
  assert.ok(bytes('killed', 'model.safetensors').equals(bytes('whole', 'model.safetensors')));
  assert.deepEqual(readdirSync(join(folder, 'killed', 'grids')), readdirSync(join(folder, 'whole', 'grids')));
  for (const grid of readdirSync(join(folder, 'whole', 'grids')))
    assert.ok(bytes('killed', join('grids', grid)).equals(bytes('whole', join('grids', grid))), grid);
});

const bytes = (run: string, file: string): Buffer => readFileSync(join(folder, run, file));

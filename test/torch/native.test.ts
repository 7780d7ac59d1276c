import assert from 'node:assert/strict';
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { FailureError } from '../../src/core/errors.js';
import { cudaAvailable, engineInfo, memory, ones, setThreads } from '../../src/torch/index.js';
import { load } from '../../src/torch/native.js';

const folder = mkdtempSync(join(tmpdir(), 'dsd-native-'));
after(() => rmSync(folder, { recursive: true }));

test('an addon that was never built says how to', () => {
  assert.throws(
    () => load(join(folder, 'absent.node')),
    (error) => error instanceof FailureError && /has not been built.*npm run setup/.test(error.message),
  );
});

test('a broken addon says how to build it again', () => {
  const path = join(folder, 'broken.node');
  writeFileSync(path, 'not a library');
  assert.throws(
    () => load(path),
    (error) => error instanceof FailureError && /could not be loaded.*npm run setup/.test(error.message),
  );
});

test('a second copy of the addon is refused, not the end of the process', () => {
  ones([1]).dispose();
  const path = join(folder, 'copy.node');
  copyFileSync(new URL('../../../build/dsd_native.node', import.meta.url), path);
  assert.throws(
    () => load(path),
    (error) => error instanceof FailureError && /another copy of it is at work/.test(error.message),
  );
});

test('what the engine is', () => {
  const info = engineInfo();
  assert.match(info.version, /^\d+\.\d+/);
  assert.match(info.path, /libtorch/);
  assert.equal(cudaAvailable(), info.cuda.length > 0);
  setThreads(1);
  assert.equal(engineInfo().threads, 1);
  setThreads(2);
  for (const wrong of [0, -1, 1.5, 1e9, Number.NaN]) assert.throws(() => setThreads(wrong), { name: 'TypeError' });
  assert.equal(typeof memory().cudaPeak, 'number');
});

test('workers have tensors of their own, and end without harm', async () => {
  const mine = ones([2]);
  const code = `
    const { parentPort, workerData } = require('node:worker_threads');
    import(workerData.url).then(({ ones, memory, Tensor }) => {
      const kept = ones([3]);
      let message = '';
      try { new Tensor(workerData.handle).neg(); } catch (error) { message = error.message; }
      parentPort.postMessage([kept.add(1).sum().item(), memory().live, message]);
    });`;
  for (let i = 0; i < 3; i++) {
    const worker = new Worker(code, {
      eval: true,
      workerData: { url: new URL('../../src/torch/index.js', import.meta.url).href, handle: mine.handle },
    });
    const [sum, live, message] = await new Promise<[number, number, string]>((resolve, reject) =>
      worker.once('message', resolve).once('error', reject),
    );
    assert.deepEqual([sum, live], [6, 3]);
    assert.match(message, /disposed/, "another thread's handle is no tensor here");
    await worker.terminate();
  }
  assert.equal(mine.sum().item(), 2);
});

/** 2,000 steps leak neither a tensor nor memory. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { memory, setThreads } from '../../src/torch/index.js';
import { toyRun } from './toy.js';

test('2,000 steps: live tensors constant, resident memory grows at most 16 MiB after step 400', async () => {
  setThreads(2);
  const live: number[] = [];
  const resident: number[] = [];

  await toyRun({
    steps: 2000,
    settings: { train: { batch: 8, images: 16_000 }, model: { depth: 2 } },
    onStep: (step) => {
      if (step === 0 || step % 100 !== 0) return;
      live.push(memory().live);
      resident.push(process.memoryUsage.rss() / 2 ** 20);
    },
  });
  assert.equal(new Set(live).size, 1, `live tensors: ${live}`);
  const from = resident[3] as number;
  assert.ok(Math.max(...resident.slice(4)) - from <= 16, `resident MiB at each hundredth step: ${resident.map(Math.round)}`);
});

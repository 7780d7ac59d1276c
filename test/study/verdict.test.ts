import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agreement, summarize } from '../../src/study/collapse/summary.js';
import { ending, ruleInWords, THRESHOLDS, type Verdict, verdict } from '../../src/study/collapse/verdict.js';
import { spreadOf } from '../../src/study/table.js';
import { BLANK, CHANNELS, curve, result } from './curves.js';

const judge = (values: Parameters<typeof curve>[0], diverged?: string): Verdict =>
  verdict({ points: curve(values), ...(diverged === undefined ? {} : { diverged }) }, { channels: CHANNELS, blank: BLANK });

test('each outcome has its verdict, and the order of the rule settles what is two things at once', () => {
  assert.equal(judge({}), 'healthy');
  assert.equal(judge({ latentDeviation: (share) => 0.02 ** share }), 'variance-suppressed');
  assert.equal(judge({ effectiveRank: 1.3 }), 'collapsed');
  assert.equal(judge({ l1: BLANK }), 'collapsed');
  assert.equal(judge({ latentDeviation: (share) => 1 + 19 * share }), 'runaway scale');
  assert.equal(judge({ effectiveRank: 3 }), 'low rank');
  assert.equal(judge({ effectiveRank: 3, latentDeviation: 20 }), 'runaway scale');
  assert.equal(judge({}, 'at 100 pictures'), 'diverged');
  // What is left of a latent that says nothing any more may have a high rank, at any scale.
  assert.equal(judge({ latentDeviation: 0.001, l1: BLANK }), 'collapsed');
  assert.equal(judge({ latentDeviation: 0.001, effectiveRank: 1.1 }), 'collapsed');
  assert.equal(judge({ latentDeviation: 20, effectiveRank: 1.1 }), 'collapsed');
});

test('thresholds hold to either side of them', () => {
  const { small, large, rank, blank, share } = THRESHOLDS;
  const near = (value: number) => [value * 0.999, value * 1.001] as const;
  assert.deepEqual(
    near(small).map((latentDeviation) => judge({ latentDeviation })),
    ['variance-suppressed', 'healthy'],
  );
  assert.deepEqual(
    near(large).map((latentDeviation) => judge({ latentDeviation })),
    ['healthy', 'runaway scale'],
  );
  assert.deepEqual(
    near(rank).map((effectiveRank) => judge({ effectiveRank })),
    ['collapsed', 'low rank'],
  );
  assert.deepEqual(
    near(share * CHANNELS).map((effectiveRank) => judge({ effectiveRank })),
    ['low rank', 'healthy'],
  );
  assert.deepEqual(
    near(blank * BLANK).map((l1) => judge({ l1 })),
    ['healthy', 'collapsed'],
  );
});

test('the end of a curve counts, not its course, and a single point does not', () => {
  assert.equal(judge({ effectiveRank: (share) => (share < 0.7 ? 1 : 7) }), 'healthy');
  assert.equal(judge({ effectiveRank: (share) => (share < 0.7 ? 7 : 1) }), 'collapsed');
  assert.equal(judge({ effectiveRank: (share) => (share === 1 ? 1 : 7) }), 'healthy');
  const found = ending(curve({ latentDeviation: (share) => 1 + share }));
  assert.deepEqual([found.latentDeviation, found.growth], [1.875, 2 / 1.5]);
  // One measurement is a curve too.
  assert.equal(ending(curve({}).slice(0, 1)).effectiveRank, 7);
});

test('the rule in words has every threshold', () => {
  const words = ruleInWords().join('\n');
  for (const value of Object.values(THRESHOLDS).slice(1)) assert.ok(words.includes(` ${value}`), `${value}`);
});

test('mean and spread over seeds; seeds that disagree are told apart', () => {
  assert.deepEqual(spreadOf([3]), { mean: 3 });
  assert.deepEqual(spreadOf([1, 3]), { mean: 2, deviation: Math.SQRT2 });
  assert.equal(agreement(['healthy']), 'healthy');
  assert.equal(agreement(['collapsed', 'collapsed', 'collapsed']), 'collapsed (3 seeds)');
  assert.equal(agreement(['collapsed', 'healthy', 'collapsed']), 'SEEDS DISAGREE: collapsed 2, healthy 1');
  const rows = summarize([
    result('norm', 0, curve({ l1: 0.1 })),
    result('norm', 1, curve({ l1: 0.2 })),
    result('naive', 0, curve({ latentDeviation: 0.01 })),
    result('naive', 1, curve({ latentDeviation: 0.5 })),
  ]);
  assert.deepEqual(
    rows.map((row) => [row.case, row.seeds, row.verdicts]),
    [
      ['naive', [0, 1], ['variance-suppressed', 'healthy']],
      ['norm', [0, 1], ['healthy', 'healthy']],
    ],
  );
  assert.ok(Math.abs((rows[1]?.l1.mean ?? 0) - 0.15) < 1e-12);
});

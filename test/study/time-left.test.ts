import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TimeLeft } from '../../src/study/time-left.js';

/** Two runs of costs 10 and 30, each judged. Training takes 2 s a unit, judging 40 s. */
test('the time left is training at its rate, and judging as of the runs before', () => {
  const left = new TimeLeft();
  const at = (share: number, run: 0 | 1, seconds: number): number => {
    const [cost, before] = run === 0 ? [10, 0] : [30, 10];
    const spent = before + share * cost;
    return left.at({ share, done: run, of: 2, spent, left: 40 - spent }, 1000 * seconds);
  };
  assert.ok(Number.isNaN(at(0, 0, 0)), 'there is no rate yet');
  assert.equal(at(0.5, 0, 10), 70);
  assert.equal(at(1, 0, 20), 60);
  assert.equal(at(1, 0, 50), 60, 'what judging takes is known when it has ended');
  at(1, 0, 60);
  assert.equal(at(0, 1, 60), 60 + 40);
  assert.equal(at(0.5, 1, 90), 30 + 40);
  assert.equal(at(1, 1, 120), 40);
  assert.equal(at(1, 1, 150), 10);
  assert.equal(at(1, 1, 170), 0, 'never less than nothing');
});

test('a study without judging is training alone', () => {
  const left = new TimeLeft();
  const at = (done: number, spent: number, seconds: number): number =>
    left.at({ share: 0.5, done, of: 3, spent, left: 30 - spent }, 1000 * seconds);
  at(0, 0, 0);
  assert.equal(at(0, 10, 10), 20);
  at(1, 10, 10);
  assert.equal(at(1, 20, 20), 10);
});

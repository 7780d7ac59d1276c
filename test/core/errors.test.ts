import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DsdError, FailureError, InterruptedError, nearest, UsageError } from '../../src/core/errors.js';

test('each kind of error has its exit code, its name, its message and its cause', () => {
  const cause = new Error('below');
  for (const [Kind, code] of [
    [UsageError, 2],
    [FailureError, 1],
    [InterruptedError, 75],
  ] as const) {
    const error = new Kind('what was wrong', { cause });
    assert.ok(error instanceof DsdError && error instanceof Error);
    assert.equal(error.exitCode, code);
    assert.equal(error.name, Kind.name);
    assert.equal(error.message, 'what was wrong');
    assert.equal(error.cause, cause);
  }
});

test('nearest finds what was meant and stays silent when nothing is near', () => {
  const presets = ['demo', 'fashion-mnist', 'imagenet-256-B', 'imagenet-256-S'];
  assert.equal(nearest('dmeo', presets), 'demo');
  assert.equal(nearest('Demo', presets), 'demo');
  assert.equal(nearest('fasion-mnst', presets), 'fashion-mnist');
  assert.equal(nearest('fashion', presets), 'fashion-mnist');
  assert.equal(nearest('imagenet-256-b', presets), 'imagenet-256-B');
  assert.equal(nearest('cifar', presets), undefined);
  assert.equal(nearest('', presets), undefined);
  assert.equal(nearest('demo', []), undefined);
  assert.equal(nearest('x', ['y']), undefined);
});

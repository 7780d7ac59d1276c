import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cudaAvailable, ones, profile, scope } from '../../src/torch/index.js';

test('a profile names the kernels that ran, and without a CUDA device says that there is none', () => {
  let ran = false;
  const square = (device: 'cpu' | 'cuda') => () => {
    ran = true;
    scope(() => void ones([64, 64], { device }).mul(2));
  };
  if (!cudaAvailable()) {
    assert.throws(() => profile(square('cpu')), /^Error: profile: .*CUDA/);
    assert.equal(ran, false);
    return;
  }
  const { kernels, busy } = profile(square('cuda'));
  assert.ok(kernels.length >= 1 && kernels.every(({ calls, microseconds }) => calls > 0 && microseconds > 0));
  assert.ok(busy > 0 && busy <= kernels.reduce((sum, { microseconds }) => sum + microseconds, 0) * 1.001);
  assert.equal(profile(() => {}).kernels.length, 0, 'a second one begins anew');
});

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UsageError } from '../../src/core/errors.js';
import { PARADIGMS, type Paradigm } from '../../src/dsd/objective.js';
import { merge, modelConfig, parseSetting, resolveConfig, samplerOptions } from '../../src/train/config.js';
import { findPreset, PRESETS } from '../../src/train/presets.js';

const toy = findPreset('toy').settings;
const set = (...settings: string[]) => resolveConfig(toy, ...settings.map(parseSetting));
const paradigm = (name: Paradigm) => `objective.paradigm=${name}`;

test("a paradigm is its switches, also when it is chosen over another run's whole configuration", () => {
  const names = (Object.keys(PARADIGMS) as Paradigm[]).map(
    (name) => [name, name === 'latent-diffusion' ? ['objective.frozen=x'] : []] as const,
  );
  for (const [from, needs] of names) {
    const before = set(paradigm(from), ...needs);
    for (const [to, needed] of names) {
      const over = [paradigm(to), ...needed].map(parseSetting);
      assert.deepEqual(resolveConfig(toy, before, ...over), set(paradigm(to), ...needed), `${from} to ${to}`);
    }
  }
});

test('a single switch holds against the paradigm; the settings of another run that no paradigm owns are kept', () => {
  const before = set('objective.weights.denoise=0.7', 'objective.mask=0.5', 'train.batch=8');
  assert.equal(before.objective.mask, 0.5);
  const after = resolveConfig(toy, before, parseSetting(paradigm('naive')), parseSetting('objective.stopGradient=true'));
  assert.deepEqual(
    [after.objective.weights.denoise, after.objective.mask, after.objective.stopGradient, after.objective.target, after.train.batch],
    [0.7, 0, true, 'velocity', 8],
  );
});

test('settings that would do nothing, or do harm, are refused with what was found', () => {
  const none = 'objective.weights={"reconstruction":0,"squared":0,"denoise":0,"align":0,"represent":0,"classify":1}';
  for (const [settings, message] of [
    [['objective.stopGradient=false'], /changes nothing while objective\.targetEncoder is 'ema'.*--set objective\.targetEncoder=online/],
    [[none, 'objective.labels=false'], /every weight .* but that of classify, which wants labels/],
    [['model.depth=1000000000'], /'model\.depth': too big.*found 1000000000/],
    [['model.width=1e7'], /'model\.width': too big/],
    [['data.image=4'], /'data\.image': too small.*found 4/],
    [['train.beta1=1'], /'train\.beta1': too big.*found 1/],
    [['train.images=1e999'], /'train\.images': .*found Infinity/],
    [['sample.interval=["a",1]'], /'sample\.interval\.0': .*found "a"/],
    [['objective.time=null'], /'objective\.time': .*found null/],
  ] as const)
    assert.throws(
      () => set(...settings),
      (error) => error instanceof UsageError && message.test(error.message),
      settings.join(' '),
    );
  assert.throws(() => parseSetting('preset=demo'), /chosen by --preset demo/);
  assert.throws(() => modelConfig(set('model.latent=17'), { channels: 1, classes: 2 }), /17 is more than the 16 values of a patch/);
  assert.deepEqual(merge({ a: { b: 1, c: 2 } }, { a: { b: [3] } }), { a: { b: [3], c: 2 } });
});

test('every preset resolves by itself', () => {
  for (const [name, { settings }] of Object.entries(PRESETS)) assert.equal(resolveConfig(merge(settings, { preset: name })).preset, name);
});

test('without labels nothing is guided', () => {
  assert.deepEqual([samplerOptions(set()).guidance, samplerOptions(set('objective.labels=false')).guidance], [2, 1]);
});

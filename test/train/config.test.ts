import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UsageError } from '../../src/core/errors.js';
import { PARADIGMS, type Paradigm } from '../../src/dsd/objective.js';
import { checkConfig, merge, modelConfig, parseSetting, resolveConfig, samplerOptions } from '../../src/train/config.js';
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

test('a run from before a setting was there is opened with what was done then', () => {
  const now = set();
  const { graph: _, ...train } = now.train;
  const { weighting: __, ...time } = now.objective.time;
  const { preconditioned: ____, ...objective } = now.objective;
  assert.deepEqual(checkConfig({ ...now, train, objective: { ...objective, time } }), {
    ...now,
    train: { ...now.train, graph: true },
    objective: { ...objective, preconditioned: false, time: { ...time, weighting: 0 } },
  });
  // Others must be there: a setting without a value of its own time would be guessed.
  const { seed: ___, ...seedless } = now.train;
  assert.throws(() => checkConfig({ ...now, train: seedless }), /'train\.seed' is missing/);
});

test('the share of a gradient is a number from 0 to 1; runs of before have a switch', () => {
  const share = (value: string): number => set(`objective.gradientIntoInput=${value}`).objective.gradientIntoInput;
  assert.deepEqual(['true', 'false', '0.05', '1'].map(share), [1, 0, 0.05, 1]);
  for (const wrong of ['1.5', '-1', '"false"', 'null']) assert.throws(() => share(wrong), /objective\.gradientIntoInput/, wrong);
});

test('a sampler is told what the network predicts', () => {
  const told = (...settings: string[]): string => samplerOptions(set(...settings)).target;
  assert.deepEqual(
    [told(), told('objective.target=velocity'), told('objective.preconditioned=true')],
    ['clean', 'velocity', 'preconditioned'],
  );
  const before = set('objective.preconditioned=true');
  const naive = resolveConfig(toy, before, parseSetting(paradigm('naive')));
  assert.equal(samplerOptions(naive).target, 'velocity', 'a paradigm is its switches');
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
    [
      ['objective.target=velocity', 'objective.time.weighting=2'],
      /weighting=2 is for a clean target and a noised input, found objective\.target=velocity .*--set objective\.time\.weighting=0/,
    ],
    [
      ['objective.target=velocity', 'objective.preconditioned=true'],
      /preconditioned is for a clean target and a noised input, found objective\.target=velocity .*--set objective\.preconditioned=false/,
    ],
    [['model.latentNorm=false', 'objective.preconditioned=true'], /latents of deviation 1.*--set model\.latentNorm=true/],
    [[none, 'objective.labels=false'], /every weight .* but that of classify, which wants labels/],
    [['model.depth=1000000000'], /^setting 'model\.depth' must be at most 1000; found 1000000000$/],
    [['model.width=1e17'], /^setting 'model\.width' must be at most 16384; found 100000000000000000$/],
    [['data.image=4'], /^setting 'data\.image' must be at least 8; found 4$/],
    [['data.image=32.5'], /^setting 'data\.image' must be a whole number; found 32\.5$/],
    [['data.source='], /^setting 'data\.source' must be text that is not empty; found ""$/],
    [['data.flip=yes'], /^setting 'data\.flip' must be true or false; found "yes"$/],
    [['train.learningRate=0'], /^setting 'train\.learningRate' must be more than 0; found 0$/],
    [['train.beta1=1'], /^setting 'train\.beta1' must be less than 1; found 1$/],
    [['train.images=1e999'], /^setting 'train\.images' must be a number; found Infinity$/],
    [['train.optimizer=moun'], /^setting 'train\.optimizer' must be one of muon, adamw; found "moun": did you mean 'muon'\?$/],
    [['sample.interval=["a",1]'], /^setting 'sample\.interval\.0' must be a number; found "a"$/],
    [['sample.interval=[1]'], /^setting 'sample\.interval' must be a list of 2; found \[1\]$/],
    [['sample.interval=1'], /^setting 'sample\.interval' must be a list; found 1$/],
    [['objective.time=null'], /^setting 'objective\.time' must be an object of settings; found null$/],
    [
      ['objective.paradigm=nave'],
      /^there is no paradigm 'nave'; did you mean 'naive'\? objective\.paradigm is one of dsd, naive, autoencoder, latent-diffusion, self-distillation$/,
    ],
    [['objective.paradigm=null'], /^there is no paradigm 'null'\. objective\.paradigm is one of dsd, /],
    [['objective.paradigm=toString'], /^there is no paradigm 'toString'/],
  ] as const)
    assert.throws(
      () => set(...settings),
      (error) => error instanceof UsageError && message.test(error.message),
      settings.join(' '),
    );
  const { data: _, ...without } = set();
  assert.throws(() => checkConfig({ ...without, train: { ...without.train, clip: undefined } }), {
    message: "setting 'data' is missing: it must be an object of settings\nsetting 'train.clip' is missing: it must be a number",
  });
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

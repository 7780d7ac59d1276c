import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Batch, Loader } from '../../src/data/loader.js';
import { memory, noGrad, scope, setThreads, type Tensor } from '../../src/torch/index.js';
import { modelConfig, resolveConfig } from '../../src/train/config.js';
import { findPreset } from '../../src/train/presets.js';
import { type StepOutput, Stepper } from '../../src/train/step.js';
import { liveTensors } from '../torch/live.js';
import { discs } from './synthetic.js';

setThreads(1);

test('a step that is skipped leaves nothing behind, the centre of the representation loss included; all is freed', async () => {
  const before = await liveTensors();
  const config = resolveConfig(findPreset('toy').settings, { train: { batch: 8 } });
  const source = discs(16, config.data.image);
  const stepper = new Stepper(config, modelConfig(config, { channels: 3, classes: source.classes.length }), 'cpu', 'float32');
  const loader = new Loader(source, { batch: 8, seed: 0, workers: 0 });
  let images = 0;
  const step = async (): Promise<{ norm: number; represent: number }> => {
    const output: StepOutput = stepper.step(await loader.next(), images);
    images += 8;
    const read = (x: Tensor | undefined): number => Number(x?.item());
    const result = { norm: read(output.gradientNorm), represent: read(output.terms.represent) };
    for (const value of [...Object.values(output.terms), output.gradientNorm, output.latent, output.rawLatent]) value?.dispose();
    return result;
  };
  assert.ok(Number.isFinite((await step()).norm));

  // A teacher that gives no numbers, for one step.
  const weight = stepper.target.weights.get('patch_in.bias');
  const kept = weight.clone();
  noGrad(() => weight.mul_(Number.NaN));
  assert.ok(Number.isNaN((await step()).norm));
  for (const [name, value] of stepper.online.weights.tensors)
    assert.ok(scope(() => value.detach().toArray() as Float32Array).every(Number.isFinite), name);
  noGrad(() => weight.copy_(kept));
  kept.dispose();
  const after = await step();
  assert.ok(Number.isFinite(after.norm) && Number.isFinite(after.represent), JSON.stringify(after));

  await loader.close();
  stepper.dispose();
  assert.equal(memory().live, before);
});

for (const compute of ['float32', 'bfloat16'] as const) {
  test(`in ${compute}, what a checkpoint keeps is all that the next step depends on`, async () => {
    const config = resolveConfig(findPreset('toy').settings, { train: { batch: 8 } });
    const source = discs(16, config.data.image);
    const model = modelConfig(config, { channels: 3, classes: source.classes.length });
    const loader = new Loader(source, { batch: 8, seed: 0, workers: 0 });
    const make = () => new Stepper(config, model, 'cpu', compute);
    const [first, second] = [make(), make()];
    const step = (stepper: Stepper, batch: Batch, images: number): number[] => {
      const { terms, gradientNorm, latent, rawLatent } = stepper.step(batch, images);
      const numbers = [...Object.values(terms), gradientNorm].map((x) => Number(x.item()));
      for (const value of [...Object.values(terms), gradientNorm, latent, rawLatent]) value?.dispose();
      return numbers;
    };
    for (let n = 0; n < 3; n++) step(first, await loader.next(), 8 * n);
    for (const [name, tensors] of first.state())
      for (const [key, value] of second.state().get(name) ?? []) noGrad(() => value.copy_(tensors.get(key) as Tensor));
    second.refresh();
    second.steps = first.steps;
    const batch = await loader.next();
    assert.deepEqual(step(second, batch, 24), step(first, batch, 24));
    for (const [name, tensors] of first.state())
      for (const [key, value] of tensors) {
        const [a, b] = [value, second.state().get(name)?.get(key) as Tensor].map((x) => [...scope(() => x.detach().toArray())]);
        assert.deepEqual(a, b, `${name}, ${key}`);
      }
    await loader.close();
    for (const stepper of [first, second]) stepper.dispose();
  });
}

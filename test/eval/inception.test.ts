import assert from 'node:assert/strict';
import fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { FailureError, UsageError } from '../../src/core/errors.js';
import { openExtractor } from '../../src/eval/extractors.js';
import { Inception2015 } from '../../src/eval/inception-2015.js';
import { inceptionOf, loadInception } from '../../src/eval/inception-weights.js';
import { type SafeTensor, writeSafetensors } from '../../src/io/safetensors.js';
import { full, scope, setThreads, stack, tensor, zeros } from '../../src/torch/index.js';
import { distance, fixture, madeInception, picture } from './inception-fixture.js';

setThreads(1);

let folder = '';
let path = '';
const made = madeInception('graph');
before(() => {
  folder = fs.mkdtempSync(join(tmpdir(), 'dsd-inception-'));
  path = join(folder, 'made.safetensors');
  writeSafetensors(path, made);
});
after(() => fs.rmSync(folder, { recursive: true, force: true }));

test("features, spatial features and logits are the oracle's, of each picture whatever the batch", () => {
  const wanted = fixture('inception-2015');
  const extractor = Inception2015.open(path, 'cpu');
  try {
    assert.deepEqual([extractor.name, extractor.distance, extractor.dimension], ['inception-2015', 'FID', 2048]);
    scope(() => {
      const other = tensor(picture(0, 40, 56), [1, 40, 56, 3]);
      const pixels = stack([tensor(picture(1, 299, 299), [299, 299, 3]), full([299, 299, 3], 200, { dtype: 'uint8' })]);
      const [first, both, alone] = [extractor.features(other), extractor.features(pixels), extractor.features(pixels.narrow(0, 1, 1))];
      for (const what of ['pooled', 'spatial', 'logits'] as const) {
        assert.ok(distance(first[what].toArray() as Float32Array, wanted.get(`${what}.0`)!) < 1e-5, `${what} of the one that is resized`);
        const [of1, of2] = both[what].unbind(0).map((one) => one.toArray() as Float32Array) as [Float32Array, Float32Array];
        assert.ok(distance(of1, wanted.get(`${what}.1`)!) < 1e-5, what);
        assert.ok(distance(of2, alone[what].toArray() as Float32Array) < 1e-5, `${what} of one in a batch`);
        assert.ok(distance(of1, of2) > 0.01, `${what} tells pictures apart`);
      }
    });
  } finally {
    extractor.dispose();
  }
});

test('the names of torchvision, as pytorch-fid has them, give the same network', () => {
  const [graph, torchvision] = [loadInception(path, 'cpu'), inceptionOf(madeInception('torchvision'), 'theirs', 'cpu')];
  assert.equal(torchvision.sha256, graph.sha256);
  assert.deepEqual([...torchvision.weights.tensors.keys()], [...graph.weights.tensors.keys()]);
  for (const [name, value] of graph.weights.tensors) assert.ok(value.eq(torchvision.weights.get(name)).all().item(), name);
  graph.weights.dispose();
  torchvision.weights.dispose();
});

test('files of other networks are refused, saying what is wrong', () => {
  const theirs = madeInception('torchvision');
  const f32 = (shape: number[], value = 1): SafeTensor => ({
    ...{ dtype: 'F32', shape },
    data: new Uint8Array(new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(value).buffer),
  });
  const refused = (reason: RegExp, tensors: ReadonlyMap<string, SafeTensor>, ...changes: [string, SafeTensor | undefined][]): void => {
    const changed = new Map(tensors);
    for (const [name, value] of changes)
      if (value) changed.set(name, value);
      else changed.delete(name);
    assert.throws(
      () => inceptionOf(changed, 'a/file', 'cpu'),
      (error) =>
        error instanceof FailureError && /^a\/file does not hold the Inception of 2015: /.test(error.message) && reason.test(error.message),
    );
  };
  refused(/has neither .* nor .*; it has x, y, z and 1 more/, new Map(['x', 'y', 'z', 'w'].map((name) => [name, f32([1])])));
  refused(/torchvision's own weights/, theirs, ['fc.weight', f32([1000, 2048])]);
  refused(/torchvision's own weights/, theirs, ['AuxLogits.conv0.conv.weight', f32([1])]);
  refused(/no tensor 'layers\.conv\.beta'/, made, ['layers.conv.beta', undefined]);
  refused(/'layers\.conv\.beta' is F32 \[31\] and should be F32 \[32\]/, made, ['layers.conv.beta', f32([31])]);
  refused(/'layers\.conv\.beta' is F16 \[32\] and/, made, ['layers.conv.beta', { ...f32([16]), dtype: 'F16', shape: [32] }]);
  refused(/of conv, its mean is not finite/, made, ['layers.conv.mean', f32([32], Number.NaN)]);
  refused(/of conv, its variance is negative/, made, ['layers.conv.var', f32([32], -1)]);
  refused(/'Conv2d_1a_3x3\.bn\.weight' is not 1/, theirs, ['Conv2d_1a_3x3.bn.weight', f32([32], 2)]);
  refused(/1 tensors that are no part of it: more/, made, ['more', f32([1])]);
});

test('a pickle is not read, and the message says how to turn it into what is', () => {
  for (const [name, bytes] of [
    ['old.pth', Uint8Array.of(0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46)],
    ['cut.safetensors', new Uint8Array(20)],
  ] as const)
    fs.writeFileSync(join(folder, name), bytes);
  assert.throws(() => loadInception(join(folder, 'old.pth'), 'cpu'), /old\.pth is a Python pickle[\s\S]*weights_only=True/);
  assert.throws(() => loadInception(join(folder, 'cut.safetensors'), 'cpu'), /not a valid safetensors file/);
});

test('without a file the message says which one to give, and how', () => {
  const before = process.env.DSD_INCEPTION;
  delete process.env.DSD_INCEPTION;
  try {
    assert.throws(
      () => openExtractor('inception-2015', { device: 'cpu' }),
      (error) => error instanceof UsageError && /DSD_INCEPTION.*--inception PATH.*inception-2015-12-05\.pt/.test(error.message),
    );
    process.env.DSD_INCEPTION = join(folder, 'nothing');
    assert.throws(() => openExtractor('inception-2015', { device: 'cpu' }), /nothing/);
  } finally {
    if (before === undefined) delete process.env.DSD_INCEPTION;
    else process.env.DSD_INCEPTION = before;
  }
  const extractor = Inception2015.open(path, 'cpu');
  assert.throws(() => extractor.features(zeros([1, 8, 8, 4], { dtype: 'uint8' })), /1 or 3 channels, found 4/);
  assert.throws(() => extractor.features(zeros([1, 8, 8, 3])), /takes uint8 pixels, found float32/);
  assert.deepEqual(extractor.features(zeros([0, 8, 8, 3], { dtype: 'uint8' })).pooled.shape, [0, 2048]);
  extractor.dispose();
});

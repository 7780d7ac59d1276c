/**
 * mixed7 of two pictures, averaged over places, by nsfwjs itself: writes test/fixtures/inception/tfjs.json. Half a minute; it needs TensorFlow.js,
 * which this project does not install. In a folder elsewhere:
 *
 *     npm install nsfwjs@4.3.0 @tensorflow/tfjs@4.22.0 buffer@6
 *     cp <here>/test/oracle/inception_tfjs.mjs . && node inception_tfjs.mjs <here>/test/fixtures/inception/tfjs.json
 */
import { writeFileSync } from 'node:fs';
import * as tf from '@tensorflow/tfjs';
import { load } from 'nsfwjs/core';
import { InceptionV3Model } from 'nsfwjs/models/inception_v3';

await tf.setBackend('cpu');
const model = await load('InceptionV3', { modelDefinitions: [InceptionV3Model] });
const found = {};
for (const [i, height, width] of [
  [0, 48, 48],
  [1, 320, 320],
]) {
  const pixels = new Int32Array(height * width * 3);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let c = 0; c < 3; c++) pixels[(y * width + x) * 3 + c] = (x * (3 + i) + y * 5 + c * 40 + ((x * y) >> (1 + i))) % 256;
  const mixed7 = model.infer(tf.tensor3d(pixels, [height, width, 3], 'int32'), 'mixed7');
  found[i] = Array.from(await mixed7.mean([0, 1, 2]).data());
}
writeFileSync(process.argv[2], JSON.stringify(found));

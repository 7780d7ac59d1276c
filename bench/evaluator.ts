/**
 * Peak resident memory and time of the evaluator's distances, on sets as large as papers use: 50,000 pictures of 2,048 features.
 *
 *     node dist/bench/evaluator.js [pictures 50000] [features 2048] [threads]
 *
 * Features come in batches, as from an extractor, and are kept in float32, for precision, recall and KID need them all. The features are
 * uncorrelated normal numbers; time and memory do not depend on them. Prints a line after each stage, the peak since the start.
 */
import { key } from '../src/core/random.js';
import { frechet } from '../src/eval/frechet.js';
import { inceptionScore } from '../src/eval/inception-score.js';
import { kid } from '../src/eval/kid.js';
import { Manifold, precisionRecall } from '../src/eval/manifold.js';
import { Moments, type Statistics } from '../src/eval/moments.js';
import { keep, randn, scope, setThreads, type Tensor, zeros } from '../src/torch/index.js';

const [count = 50_000, dimension = 2048, threads = 0] = process.argv.slice(2).map(Number);
const BATCH = 256;
const CLASSES = 1008;
if (threads > 0) setThreads(threads);

let last = performance.now();
function told(stage: string, result = ''): void {
  const now = performance.now();
  const peak = process.resourceUsage().maxRSS / 1024;
  console.log(
    `${stage.padEnd(22)} ${((now - last) / 1000).toFixed(1).padStart(7)} s   peak ${peak.toFixed(0).padStart(5)} MiB   ${result}`,
  );
  last = performance.now();
}

/** Features as an extractor would hand them over, and their statistics. */
function collect(seed: number): { features: Tensor; statistics: Statistics } {
  const features = keep(zeros([count, dimension]));
  const moments = new Moments();
  for (let at = 0; at < count; at += BATCH)
    scope(() => {
      const part = randn(key(seed, 'bench'), at, [Math.min(BATCH, count - at), dimension]);
      moments.add(part);
      features.narrow(0, at, part.shape[0] as number).copy_(part);
    });
  const statistics = moments.read();
  moments.dispose();
  return { features, statistics };
}

told('start');
const [real, fake] = [collect(1), collect(2)];
told('statistics of two sets');
told('Frechet distance', frechet(real.statistics, fake.statistics).toPrecision(6));
const { mean, size, subsets } = kid(real.features, fake.features, { seed: 0 });
told(`KID ${subsets} x ${size}`, mean.toExponential(2));
const manifolds = [new Manifold(real.features), new Manifold(fake.features)] as const;
told('two manifolds');
const { precision, recall } = precisionRecall(...manifolds);
told('precision and recall', `${precision} ${recall}`);
for (const manifold of manifolds) manifold.dispose();
scope(() => {
  const logits = zeros([count, CLASSES]);
  told('Inception Score', inceptionScore(logits).mean.toFixed(3));
});

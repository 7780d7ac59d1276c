import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { memory } from '../../src/torch/index.js';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/**
 * How many tensors live once those that nothing refers to are gone. A count to compare with is taken so: what an earlier test left to the
 * collector would else go in the middle of a test that counts.
 */
export async function liveTensors(): Promise<number> {
  for (let before = -1, quiet = 0; quiet < 3; ) {
    collect();
    await new Promise((resolve) => setTimeout(resolve, 1)); // finalizers run between two turns of the event loop
    const { live } = memory();
    quiet = live === before ? quiet + 1 : 0;
    before = live;
  }
  return memory().live;
}

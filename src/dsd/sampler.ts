/**
 * From noise to a latent: Euler and Heun on a shifted time grid, with classifier-free guidance. ARCHITECTURE.md, The method: sampling.
 *
 * Generic over the tensor: it needs four operations and imports no engine, so that a browser runs this very file. It is a generator that
 * asks for predictions instead of calling a network: the caller answers at once or after awaiting, as its engine wants.
 */

/** The operations on latents that a solver needs. */
export interface Latents<T> {
  /** a * x + b * y, a new tensor. */
  mix(a: number, x: T, b: number, y: T): T;
  /** x twice, one after the other along the batch. */
  pair(x: T): T;
  /** The two halves of a batch. */
  halves(x: T): [T, T];
  /** Called once for each tensor that the solver made or was given as an answer, when it is done with it. */
  free(x: T): void;
}

/** What the network is asked: its prediction at (z, t). When `guided`, z is a pair: the first half wants the class, the second none. */
export interface Question<T> {
  readonly z: T;
  readonly t: number;
  readonly guided: boolean;
}

export interface SamplerOptions {
  readonly solver: 'euler' | 'heun';
  /** Steps of the grid; Heun asks twice in each but the last. */
  readonly steps: number;
  /** Scale s of u + s (c - u); 1 means no guidance. */
  readonly guidance: number;
  /** Guidance is applied while t lies in this interval, ends included. */
  readonly interval: readonly [number, number];
  /** a of t' = a t / (1 + (a - 1) t). */
  readonly shift: number;
  /** What the network predicts; 'preconditioned': what of the clean latent is not seen in z_t already, see `precondition`. */
  readonly target: 'clean' | 'velocity' | 'preconditioned';
}

/**
 * The clean latent is skip z_t + out F of what the network gives, F: the best linear guess, and the rest at its scale, both for latents of deviation 1 whose
 * own noised selves z_t are (Karras et al., arXiv 2206.00364, section 5, for z_t = t z + (1 - t) eps). Near t = 1 the network has little to add.
 */
export function precondition(t: number): { readonly skip: number; readonly out: number } {
  const power = t * t + (1 - t) * (1 - t); // of z_t
  return { skip: t / power, out: (1 - t) / Math.sqrt(power) };
}

/** The times t_0 = 0 (noise) to t_steps = 1 (clean): t' = a t / (1 + (a - 1) t) of an even grid. */
export function timeGrid(steps: number, shift: number): number[] {
  return Array.from({ length: steps + 1 }, (_, i) => {
    const t = i / steps;
    return (shift * t) / (1 + (shift - 1) * t);
  });
}

/**
 * NFE, the number of function evaluations: how often `sample` wants a velocity. Heun wants two a step, but one in the last. Under guidance the network answers
 * twice for one velocity, with the class and without.
 */
export const evaluations = ({ solver, steps }: Pick<SamplerOptions, 'solver' | 'steps'>): number =>
  solver === 'heun' ? 2 * steps - 1 : steps;

/**
 * Solves dz/dt = v from t = 0 to 1 starting at `noise`, which stays the caller's. A network that predicts the clean latent f gives
 * v = (f - z) / (1 - t); since the last step lands on t = 1 by Euler, 1 - t is never zero where it divides, and nothing is clamped.
 */
export function* sample<T>(latents: Latents<T>, noise: T, options: SamplerOptions): Generator<Question<T>, T, T> {
  const { mix, pair, halves, free } = latents;
  const [from, to] = options.interval;

  function* velocity(z: T, t: number): Generator<Question<T>, T, T> {
    const guided = options.guidance !== 1 && t >= from && t <= to;
    let prediction: T;
    if (guided) {
      const both = pair(z);
      const answer = yield { z: both, t, guided };
      const [conditional, unconditional] = halves(answer);
      prediction = mix(options.guidance, conditional, 1 - options.guidance, unconditional);
      for (const part of [both, conditional, unconditional, answer]) free(part);
    } else {
      prediction = yield { z, t, guided };
    }
    if (options.target === 'velocity') return prediction;
    const { skip, out } = options.target === 'clean' ? { skip: 0, out: 1 } : precondition(t);
    const v = mix(out / (1 - t), prediction, (skip - 1) / (1 - t), z);
    free(prediction);
    return v;
  }

  const grid = timeGrid(options.steps, options.shift);
  let z = noise;
  for (let i = 0; i < options.steps; i++) {
    const [t, next] = [grid[i] as number, grid[i + 1] as number];
    const v = yield* velocity(z, t);
    let end = mix(1, z, next - t, v);
    if (options.solver === 'heun' && next < 1) {
      const ahead = yield* velocity(end, next);
      const mean = mix(0.5, v, 0.5, ahead);
      free(end);
      end = mix(1, z, next - t, mean);
      free(ahead);
      free(mean);
    }
    free(v);
    if (z !== noise) free(z);
    z = end;
  }
  return z;
}

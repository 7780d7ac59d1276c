/**
 * CUDA graphs: work that is written down once and then given to the device as one, without a call for each operator.
 *
 * What is captured reads and writes tensors where they lay: those it uses must live as long as the graph, and their values are what changes from one
 * replay to the next. Numbers of JavaScript are captured as they were.
 */
import { engine } from './call.js';
import type { Device } from './dtype.js';
import { cudaAvailable } from './machine.js';
import { keep, scope, tensorsIn } from './scope.js';
import type { Tensor } from './tensor.js';

/** Frees graphs that nobody disposed of. */
const forgotten = new FinalizationRegistry<number>((id) => engine().graphFree(id));

export class Graph<T> {
  private constructor(
    private readonly id: number,
    /** What the captured function returned. Its tensors hold what the last replay computed, and nothing before the first. */
    readonly result: T,
  ) {
    forgotten.register(this, id, this);
  }

  /** Whether work on this device can be captured. */
  static supports(device: Device): boolean {
    return device !== 'cpu' && cudaAvailable();
  }

  /**
   * Captures the work that `fn` gives to the device; none of it is done. Let `fn` run once or twice before: what is done at a first call (compiling
   * kernels, making the libraries' workspaces) cannot be captured. Nor can a wait for the device (`item`, `toArray`), or values of an array (`tensor`).
   * @param fn returns tensors that it made, as for `scope`
   * @throws Error that says what could not be captured, or what `fn` throws; then nothing is left of the capture
   */
  static capture<T>(device: Device, fn: () => T): Graph<T> {
    const bridge = engine();
    bridge.graphBegin(device);
    let result: T;
    try {
      result = scope(fn);
    } catch (error) {
      try {
        bridge.graphEnd(false);
      } catch {
        // It was spoilt by what `error` is about.
      }
      throw error;
    }
    const made = tensorsIn(result, 'Graph.capture');
    try {
      const id = bridge.graphEnd(true) as number;
      made.forEach(keep); // whatever scope is open around
      return new Graph(id, result);
    } catch (error) {
      for (const tensor of made) tensor.dispose();
      throw error;
    }
  }

  /** Has the device do the work, with the values that the tensors have when it comes to it. Waits for nothing. @throws Error once disposed */
  replay(): void {
    engine().graphReplay(this.id);
  }

  /** Frees the graph, its memory and the tensors of the result, when the device has done what it was given. Twice is harmless. */
  dispose(): void {
    forgotten.unregister(this);
    engine().graphFree(this.id);
    for (const tensor of tensorsIn(this.result, 'Graph')) tensor.dispose();
  }
}

const deviceOf = ([first]: readonly Tensor[]): Device => (first as Tensor).device;

/** Shapes for which a function is kept captured. */
const MOST = 4;

interface Call {
  readonly inputs: readonly Tensor[];
  readonly graph: Graph<Tensor>;
}

/**
 * A function of tensors that is captured at its second call with tensors of the same shapes, and replayed from then on. On a CPU, and where it cannot be
 * captured, it is called each time; the results are the same.
 */
export class Replayed<A extends readonly Tensor[]> {
  /** By shapes; called once before where there is no call yet. The one used least recently first. */
  private readonly calls = new Map<string, Call | undefined>();
  /** Why calls are not captured although the device could: once that failed, it is not tried again. */
  uncaptured: string | undefined;

  /** @param fn depends on its arguments alone, of which it has at least one, and on tensors that outlive this object */
  constructor(private readonly fn: (...inputs: A) => Tensor) {}

  /** A new tensor each time, the caller's. Where it is captured it has no history: this is for use without gradient. */
  call(...inputs: A): Tensor {
    if (this.uncaptured !== undefined || !Graph.supports(deviceOf(inputs))) return this.fn(...inputs);
    const key = inputs.map(({ shape, dtype }) => `${dtype}[${shape}]`).join();
    if (!this.calls.has(key)) {
      this.calls.set(key, undefined);
      if (this.calls.size > MOST) this.forget(this.calls.keys().next().value as string);
      return this.fn(...inputs);
    }
    const call = this.calls.get(key) ?? this.capture(inputs);
    if (!call) return this.fn(...inputs);
    this.calls.delete(key); // what is set anew stays in its place
    this.calls.set(key, call);
    call.inputs.forEach((own, i) => void own.copy_(inputs[i] as Tensor));
    call.graph.replay();
    return call.graph.result.clone();
  }

  private capture(inputs: A): Call | undefined {
    const own: Tensor[] = [];
    try {
      for (const input of inputs) own.push(keep(input.clone()));
      return { inputs: own, graph: Graph.capture(deviceOf(own), () => this.fn(...(own as readonly Tensor[] as A))) };
    } catch (error) {
      // Without a graph it is slower, and says itself what is wrong, if something is. Then it may need the memory of all of them.
      for (const tensor of own) tensor.dispose();
      this.dispose();
      this.uncaptured = error instanceof Error ? error.message : String(error);
      return undefined;
    }
  }

  private forget(key: string): void {
    const call = this.calls.get(key);
    this.calls.delete(key);
    if (!call) return;
    call.graph.dispose();
    for (const tensor of call.inputs) tensor.dispose();
  }

  /** Frees what was captured. It can go on being called. */
  dispose(): void {
    for (const key of [...this.calls.keys()]) this.forget(key);
  }
}

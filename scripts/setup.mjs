/**
 * All set-up on a fresh Debian or Ubuntu: `npm run demo`, `npm test` and `npm run bench` run this first. Each step looks whether it is
 * done and says what it does when not; all done takes a fraction of a second. Node built-ins only, since nothing is installed yet.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BuildError, buildNative, findLibtorch } from './build-native.mjs';
import { activeBlas, chooseOpenmpBlas, findProgram, installPackages, SetupError } from './system-packages.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const NEEDED_NODE = [20, 9];
const started = performance.now();
let working = 0;

const seconds = (since) => `${((performance.now() - since) / 1000).toFixed(1)} s`;
const log = (text) => process.stderr.write(`${text}\n`);
const detail = (text) => log(`  ${text}`);

/** Runs a step that is not done yet, and says how long it took. */
async function step(name, action) {
  working++;
  const begin = performance.now();
  log(`set-up: ${name}`);
  await action();
  log(`set-up: ${name}: done in ${seconds(begin)}`);
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < NEEDED_NODE[0] || (major === NEEDED_NODE[0] && minor < NEEDED_NODE[1]))
    throw new SetupError(
      `Node ${process.versions.node} is too old: ${NEEDED_NODE.join('.')} or newer is needed. Install one and run this again.`,
    );
}

/**
 * One set-up at a time in this folder. The kernel's lock belongs to our open file, goes with our process however it ends, and holds across
 * containers; Node cannot ask for it, so the program `flock` does, on the file it inherits from us.
 */
function lock() {
  if (!findProgram('flock')) return;
  const file = openSync(join(root, 'build', '.setup.lock'), 'a');
  const flock = (...args) => spawnSync('flock', [...args, '3'], { stdio: ['ignore', 'ignore', 'ignore', file] }).status;
  if (flock('--nonblock') === 0) return;
  log('set-up: another set-up is at work in this folder; waiting for it to end');
  if (flock() !== 0) throw new SetupError('interrupted while waiting for another set-up in this folder.');
}

/** Whether node_modules is what package-lock.json says. */
function packagesInstalled(stamp, wanted) {
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return true;
  // No stamp of ours: the user may have run npm, which leaves a list of what it installed.
  const list = join(root, 'node_modules', '.package-lock.json');
  if (!existsSync(list)) return false;
  const installed = JSON.parse(readFileSync(list, 'utf8')).packages;
  const locked = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')).packages;
  // Of the optional ones, only those for this kind of machine have to be there; what needs them alone says nothing of machines.
  const here = ({ os, cpu, libc }) =>
    (os || cpu) && (!os || os.includes(process.platform)) && (!cpu || cpu.includes(process.arch)) && (!libc || libc.includes('glibc'));
  const complete = Object.entries(locked).every(
    ([path, entry]) => path === '' || (entry.optional && !here(entry)) || installed[path]?.version === entry.version,
  );
  if (complete) writeFileSync(stamp, wanted);
  return complete;
}

async function installNodePackages() {
  const stamp = join(root, 'node_modules', '.dsd-stamp');
  const wanted = hash([readFileSync(join(root, 'package-lock.json')), process.platform, process.arch]);
  if (packagesInstalled(stamp, wanted)) return;
  await step('npm packages', async () => {
    // `npm run` tells where npm is; it need not be on the PATH. Other package managers set the variable too.
    const own = process.env.npm_execpath ?? '';
    const npm = /npm-cli\.[cm]?js$/.test(own) ? [process.execPath, own] : ['npm'];
    if (npm.length === 1 && !findProgram('npm'))
      throw new SetupError('npm was not found. Install it (on Debian: sudo apt-get install npm).');
    // The compiler is a development package, and NODE_ENV=production would leave it out.
    run(
      [...npm, 'ci', '--include=dev', '--no-audit', '--no-fund', '--loglevel=error'],
      'Check the network and the registry that npm is set to.',
    );
    writeFileSync(stamp, wanted);
  });
}

/** Compiler and libtorch, the latter with a BLAS that is fast beside it. Returns the libtorch to build for. */
async function findEngine() {
  let libtorch = findLibtorch();
  const missing = [];
  if (!process.env.CXX && !findProgram('g++')) missing.push('g++');
  if (!libtorch) missing.push('libtorch-dev', 'libopenblas0-openmp');
  else if (isSystem(libtorch)) {
    const blas = activeBlas();
    if (blas && !blas.good && !existsSync(blas.openmp)) missing.push('libopenblas0-openmp');
  }
  if (missing.length > 0) {
    await step(`system packages (${missing.join(', ')})`, async () => {
      try {
        await installPackages(missing, detail);
      } catch (error) {
        // Without a fast BLAS all works, slowly.
        if (!(error instanceof SetupError) || missing.some((name) => name !== 'libopenblas0-openmp')) throw error;
        detail(`going on with a slow BLAS: ${error.message}`);
      }
    });
    libtorch = findLibtorch();
    if (!libtorch)
      throw new SetupError('libtorch was not found even after it was installed. Set LIBTORCH to its folder and run this again.');
  }
  if (isSystem(libtorch)) await chooseBlas();
  return libtorch;
}

async function chooseBlas() {
  const blas = activeBlas();
  if (!blas || blas.good || !existsSync(blas.openmp)) return;
  await step(`BLAS (${blas.path} is slow under libtorch)`, async () => {
    const { done, text } = await chooseOpenmpBlas(blas, detail);
    if (!done) detail(`training on the CPU will be several times slower than it could be. To choose the fast one, run\n  ${text}`);
  });
}

/** Whether a libtorch is the distribution's, which takes the distribution's BLAS; PyTorch's wheels bring their own. */
function isSystem(libtorch) {
  return /^\/usr\/lib\/[^/]+-linux-gnu\/?$/.test(libtorch.libraries);
}

async function compileTypeScript() {
  const sources = ['src', 'bench', 'test'].flatMap((folder) => filesUnder(join(root, folder)).filter((path) => /\.ts$/.test(path)));
  const facts = [...sources, join(root, 'tsconfig.json'), join(root, 'package-lock.json')].map((path) => {
    const { mtimeMs, size } = statSync(path);
    return `${relative(root, path)} ${mtimeMs} ${size}`;
  });
  const stamp = join(root, 'dist', '.dsd-stamp');
  const wanted = hash(facts);
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted && existsSync(join(root, 'dist/src/cli/main.js'))) return;
  await step('TypeScript', async () => {
    rmSync(stamp, { force: true });
    run([process.execPath, join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', root], 'The lines above say where.');
    // What a removed source left behind would still run, or satisfy an import.
    const made = new Set(sources.map((path) => relative(root, path).replace(/ts$/, 'js')));
    for (const path of filesUnder(join(root, 'dist'))) {
      const name = relative(join(root, 'dist'), path);
      if (/\.c?js(\.map)?$/.test(name) && !made.has(name.replace(/\.map$/, ''))) rmSync(path);
    }
    writeFileSync(stamp, wanted);
  });
}

function filesUnder(folder) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? filesUnder(path) : [path];
  });
}

/** Runs a program whose output the user sees. */
function run([program, ...args], remedy) {
  const { status, signal, error } = spawnSync(program, args, { cwd: root, stdio: ['ignore', 2, 2] });
  if (status !== 0)
    throw new SetupError(`${[program, ...args].join(' ')} failed (${error?.message ?? signal ?? `exit ${status}`}). ${remedy}`);
}

function hash(parts) {
  const sum = createHash('sha256');
  for (const part of parts) sum.update(part).update('\0');
  return sum.digest('hex');
}

try {
  checkNode();
  mkdirSync(join(root, 'build'), { recursive: true });
  lock();
  await installNodePackages();
  const libtorch = await findEngine();
  const { built } = await buildNative({ libtorch, log: detail });
  if (built) working++;
  await compileTypeScript();
  log(`set-up: ${working === 0 ? 'nothing to do' : 'complete'} (${seconds(started)})`);
} catch (error) {
  // An error of the system (a full disk, a folder of another user) says all in its message; of any other, the place matters.
  const expected = error instanceof SetupError || error instanceof BuildError || error?.syscall;
  log(`set-up failed: ${expected ? error.message : (error?.stack ?? error)}`);
  process.exitCode = 1;
}

/**
 * The first script in the executable: it runs the bundle for the name that it was started under, with the
 * bytecode that this name needed during training. Compiling the same functions anew would cost every verb
 * 4 to 8 ms.
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { getAssetKeys, getRawAsset } from 'node:sea';
import { Script } from 'node:vm';

/**
 * Where the executable that is built for training leaves its code caches; "" in the executable that is built
 * for use.
 */
declare const TRAINING: string;

/** A bundle: it imports by `require`, and plugins pass their exit code to `end`, if there is one. */
type Bundle = (require: NodeJS.Require, end?: (code: number) => void) => void;

const name = basename(process.argv0);
const file = name === 'cni' ? 'cni.js' : 'main.js';
const cache = `${name}.cache`;
const cachedData = TRAINING ? readTrained() : readCache();
// The bundles are ASCII. Only the source is copied.
const script = new Script(Buffer.from(getRawAsset(file)).toString('latin1'), {
  filename: file,
  ...(cachedData && { cachedData }),
});
if (script.cachedDataRejected !== false && process.env.CNI_DEBUG)
  process.stderr.write(
    `This executable has no bytecode of "${name}", which makes it slower. Build it again as root\n`,
  );
const run = script.runInThisContext() as Bundle;

if (TRAINING) {
  const restoreFlags = suspendTiming();
  process.on('exit', () => {
    restoreFlags();
    // This is all that was compiled so far, by this run and those before it.
    writeFileSync(`${TRAINING}/${cache}`, script.createCachedData());
  });
  run(require, process.exit);
} else {
  run(require);
}

/**
 * Turns off whatever depends on timing and would affect the code cache: notes on which functions are worth
 * optimizing, and discarding the bytecode of functions that were not called for a while.
 * @returns turns it on again; otherwise, a process in which it is on would reject the cache.
 */
function suspendTiming(): () => void {
  const { setFlagsFromString } = process.getBuiltinModule('node:v8');
  const flags = ['opt', 'profile-guided-optimization', 'flush-bytecode'];
  const setAll = (prefix: string) => {
    for (const flag of flags) setFlagsFromString(prefix + flag);
  };
  setAll('--no-');
  return () => setAll('--');
}

function readCache(): Buffer | undefined {
  return getAssetKeys().includes(cache) ? Buffer.from(getRawAsset(cache)) : undefined;
}

function readTrained(): Buffer | undefined {
  try {
    return readFileSync(`${TRAINING}/${cache}`);
  } catch {
    return undefined;
  }
}

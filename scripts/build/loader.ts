/**
 * The first script in the executable: it runs the bundle that belongs to the name it was started under, with
 * the bytecode that this name needed when the executable was built. Compiling the same functions anew would
 * cost every verb 4 to 8 ms.
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { getAssetKeys, getRawAsset } from 'node:sea';
import { Script } from 'node:vm';

/**
 * Where the executable that is built for training leaves the code caches; "" in the one that is built for
 * use.
 */
declare const TRAINING: string;

/** A bundle: its module system is `require`, and plugins hand their exit code to `end`, if there is one. */
type Bundle = (require: NodeJS.Require, end?: (code: number) => void) => void;

const name = basename(process.argv0);
const file = name === 'cni' ? 'cni.js' : 'main.js';
const cache = `${name}.cache`;
const cachedData = TRAINING ? readTrained() : readCache();
// The bundles are ASCII. Nothing is copied but the source.
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
    // What was compiled until now, by this run and those before it.
    writeFileSync(`${TRAINING}/${cache}`, script.createCachedData());
  });
  run(require, process.exit);
} else {
  run(require);
}

/**
 * Turns off what depends on timing and would be in the code cache: notes on which functions are worth
 * optimizing, and that functions not called for a while are forgotten.
 * @returns turns it on again, without which the cache is not taken by a process that has it on.
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

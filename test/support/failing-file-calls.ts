/** Has functions of node:fs fail, in the process of the test. */

import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';

/**
 * Has a function of node:fs fail while something is done.
 * @param code of the error, such as "EMFILE".
 * @param concerns tells by its arguments which calls fail; all when left out.
 */
export async function failing(
  name: 'openSync' | 'readdirSync' | 'unlinkSync' | 'writeSync',
  code: string,
  work: () => void | Promise<void>,
  concerns: (...args: readonly unknown[]) => boolean = () => true,
): Promise<void> {
  const original = fs[name] as (...args: readonly unknown[]) => unknown;
  const replace = (value: unknown) => {
    Object.assign(fs, { [name]: value });
    syncBuiltinESMExports();
  };
  replace((...args: readonly unknown[]) => {
    if (concerns(...args)) throw Object.assign(new Error(code), { code });
    return original(...args);
  });
  try {
    await work();
  } finally {
    replace(original);
  }
}

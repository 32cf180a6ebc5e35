/** Where the log goes, and how much of it is kept. */

import { isAbsolute } from 'node:path';
import { errnoOf, readRegularFile } from '../../file.ts';
import { parseJson } from '../json.ts';
import { decode, integer, object, string, withDefault } from '../schema.ts';

/** Settings of the log. */
export interface LogSettings {
  /** "off", "journald", or the absolute path of a file. */
  readonly destination: string;
  /** How large a file may become, in bytes. */
  readonly maxSize: number;
  /** How many full files are kept besides the current one. */
  readonly keep: number;
}

const MiB = 1024 * 1024;

const schema = object({
  destination: withDefault(
    string({ description: '"off", "journald", or the absolute path of a file.' }),
    'off',
  ),
  maxSizeMiB: withDefault(integer({ min: 1, max: 1024, description: 'Size at which a file is full.' }), 10),
  keep: withDefault(integer({ min: 1, max: 100, description: 'How many full files are kept.' }), 3),
});

const known = Object.keys(schema.shape)
  .map((key) => `"${key}"`)
  .join(', ');

/**
 * Reads the settings.
 * @param wanted CNI_LOG, which takes precedence over the "destination" in the file.
 * @param file path of the host's settings, which need not exist.
 * @throws Error that says which of them is wrong, and how to correct it.
 */
export function readLogSettings(wanted: string | undefined, file: string): LogSettings {
  const { destination, maxSizeMiB, keep } = readFile(file);
  const settings = { destination: wanted || destination, maxSize: maxSizeMiB * MiB, keep };
  const isKnown = ['off', 'journald'].includes(settings.destination);
  if (isKnown || (isAbsolute(settings.destination) && !/\0|\/$/.test(settings.destination))) return settings;
  const where = wanted ? 'CNI_LOG' : `"destination" in "${file}"`;
  throw new Error(
    `${where} is "${settings.destination}". Set it to "off", "journald" or the absolute path of a file`,
  );
}

function readFile(file: string) {
  try {
    // Whoever manages the host's settings may have put a link there.
    const value = parseJson(readRegularFile(file, { followLink: true }));
    const settings = decode(schema, value);
    const unknown = Object.keys(value as object).filter((key) => !Object.hasOwn(schema.shape, key));
    if (unknown.length === 0) return settings;
    throw new Error(`It has ${unknown.map((key) => `"${key}"`).join(', ')}, but knows only ${known}`);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return decode(schema, {});
    throw new Error(`"${file}" cannot be used: ${(error as Error).message}. Correct it, or remove it`);
  }
}

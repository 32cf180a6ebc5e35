/** Files with keys that all networks of a host share, as plugins for Kubernetes networks read them. */

import { errnoOf, fileError, readRegularFile } from '../file.ts';
import { isObject } from '../object.ts';
import { parseJson } from './json.ts';
import { decode, type InferShape, type ObjectSchema, type Shape } from './schema.ts';

/**
 * Adds the keys of a flat file to a configuration, whose own keys take precedence, unless they are empty. The
 * first file that exists is used, as the nodes of a network may have different ones.
 * @param own the configuration; a file named by its "configuration_path" comes first.
 * @param places the paths that come next.
 * @throws CniError when the file cannot be read; Error when it is not JSON, or a value is wrong.
 */
export function withFlatFile<S extends Shape, C extends { configuration_path?: string }>(
  own: InferShape<S> & C,
  schema: ObjectSchema<S>,
  places: readonly string[],
): InferShape<S> & C {
  for (const file of own.configuration_path ? [own.configuration_path, ...places] : places) {
    let text: string;
    try {
      text = readRegularFile(file, { followLink: true });
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') continue;
      throw fileError('read', file, error);
    }
    return fill(own, readShared(text, file, schema)) as InferShape<S> & C;
  }
  return own;
}

/**
 * Fills in what is empty in a configuration, and in the objects within it. Source: "Merge" of mergo, by which
 * the plugins that have these files read them.
 */
function fill(own: object, shared: object): object {
  const filled: Record<string, unknown> = { ...own };
  for (const [key, value] of Object.entries(shared)) {
    const given = filled[key];
    if (isEmpty(given)) filled[key] = value;
    else if (isPlain(given) && isPlain(value)) filled[key] = fill(given, value);
  }
  return filled;
}

function isEmpty(value: unknown): boolean {
  return value === undefined || value === '' || value === 0 || (Array.isArray(value) && value.length === 0);
}

/** True for an object of JSON, as opposed to a value that was made of text, such as an address. */
function isPlain(value: unknown): value is object {
  return isObject(value) && Object.getPrototypeOf(value) === Object.prototype;
}

function readShared<S extends Shape>(text: string, file: string, schema: ObjectSchema<S>): InferShape<S> {
  try {
    const value = parseJson(text);
    return decode(schema, isObject(value) ? value : {});
  } catch (error) {
    throw new Error(
      `File "${file}" cannot be used: ${(error as Error).message}. Correct it, or name another one in "configuration_path"`,
    );
  }
}

/** Files with keys that all networks of a host share, as plugins for Kubernetes networks read them. */

import { errnoOf, fileError, readRegularFile } from '../file.ts';
import { isObject } from '../object.ts';
import { parseJson } from './json.ts';
import { decode, type InferShape, type ObjectSchema, type Shape } from './schema.ts';

/**
 * Adds the keys of a flat file to a configuration, whose own keys take precedence. The first file that exists
 * is used, as the nodes of a network may have different ones.
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
    return { ...readShared(text, file, schema), ...own };
  }
  return own;
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

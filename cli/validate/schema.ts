/** Checks a value against a plugin's schema, and reports all mistakes rather than the first. */

import {
  getKey,
  type JsonSchema,
  type ObjectSchema,
  type Schema,
  SchemaError,
} from '../../lib/cni/schema.ts';
import { isObject } from '../../lib/object.ts';
import type { JsonNode } from '../json.ts';
import { at, error, type Finding, warning } from './finding.ts';
import { didYouMean } from './suggest.ts';

/** Values that the plugin would refuse. */
export function schemaFindings(schema: Schema<unknown>, value: unknown, path: string): Finding[] {
  if (isObjectSchema(schema) && isObject(value))
    return Object.entries(schema.shape).flatMap(([key, field]) => {
      const found = getKey(value, key);
      if (found !== undefined && found !== null) return schemaFindings(field, found, at(path, key));
      return attempt(() => field.absent?.(at(path, key)));
    });
  return attempt(() => schema.decode(value, path));
}

function attempt(decode: () => unknown): Finding[] {
  try {
    decode();
    return [];
  } catch (problem) {
    if (problem instanceof SchemaError) return [error('schema', problem.path, problem.message)];
    throw problem;
  }
}

function isObjectSchema(schema: Schema<unknown>): schema is ObjectSchema<Record<string, Schema<unknown>>> {
  return 'shape' in schema;
}

/**
 * Keys that have no effect, and keys that occur twice.
 * @param schema what is known about the value; nothing is reported about what it leaves open.
 */
export function keyFindings(schema: JsonSchema, node: JsonNode, path: string): Finding[] {
  const { properties, items, additionalProperties } = schema;
  if (node.items && isObject(items))
    return node.items.flatMap((item, i) => keyFindings(items, item, `${path}[${i}]`));
  if (!node.fields) return [];
  const seen = new Set<string>();
  return node.fields.flatMap(({ key, node: value }) => {
    const findings: Finding[] = [];
    if (seen.has(key))
      findings.push(
        warning(
          'duplicate-key',
          at(path, key),
          `Key "${key}" occurs twice, and the last one counts. Remove the other`,
        ),
      );
    seen.add(key);
    const known = isObject(properties) ? knownKey(properties, key) : undefined;
    const inner = known !== undefined ? getKey(properties as object, known) : additionalProperties;
    if (isObject(inner)) findings.push(...keyFindings(inner, value, at(path, key)));
    else if (isObject(properties))
      findings.push(
        warning(
          'unknown-key',
          at(path, key),
          `Key "${key}" is not known here and has no effect${didYouMean(key, Object.keys(properties))}`,
        ),
      );
    return findings;
  });
}

function knownKey(properties: object, key: string): string | undefined {
  if (Object.hasOwn(properties, key)) return key;
  return Object.keys(properties).find((known) => known.toLowerCase() === key.toLowerCase());
}

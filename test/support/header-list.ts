/** Headers as they stood on the wire: in order, with duplicates, in the case in which they were sent. */
export type HeaderList = [name: string, value: string][];

/** All values of a header, whatever the case of its name. */
export function valuesOf(headers: HeaderList, name: string): string[] {
  return headers.filter(([known]) => known.toLowerCase() === name.toLowerCase()).map(([, value]) => value);
}

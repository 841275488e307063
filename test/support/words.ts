/** Words that no text for operators uses: the field has its own for what they mean. */
export const privateWords =
  /\b((some|no|every|any)body|who(so)?ever|told|believed|second looks?|undo(ne)?|undid|taken back|rooms|mend(ed)?|dial(s|led|ling)?)\b/gi

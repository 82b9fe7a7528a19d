-- What is shown of the head that an approval is bound to, as JSON: the AWS actions, and the fields by their values or digests.
-- An approval that was asked for before has none, and its digest is that of no request any more.
ALTER TABLE approvals ADD COLUMN head TEXT;

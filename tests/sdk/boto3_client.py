"""An agent that works with boto3, unchanged, on the placeholder keys of its environment."""

import io
import os

import boto3
from boto3.s3.transfer import TransferConfig

s3 = boto3.client("s3", region_name="us-east-1")
small = b"hello from boto3" * 1000
s3.put_object(Bucket="data", Key="a b/\u00e9+~.txt", Body=small)
s3.put_object(Bucket="data", Key="dir//./odd", Body=small)
s3.put_object(Bucket="data", Key="sha", Body=small, ChecksumAlgorithm="SHA256")
s3.get_object(Bucket="data", Key="a b/\u00e9+~.txt")["Body"].read()
s3.copy_object(Bucket="data", Key="copy", CopySource={"Bucket": "data", "Key": "a b"})
s3.list_objects_v2(Bucket="data", Prefix="a b/")
parts = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
s3.upload_fileobj(io.BytesIO(os.urandom(12 << 20)), "data", "large", Config=parts)
print("s3: ok")

boto3.client("dynamodb", region_name="us-east-1").get_item(TableName="things", Key={"id": {"S": "\u00e9"}})
print("dynamodb: ok")
queue = "https://sqs.us-east-1.amazonaws.com/123456789012/jobs"
boto3.client("sqs", region_name="us-east-1").delete_message(QueueUrl=queue, ReceiptHandle="h")
print("sqs: ok")
boto3.client("ec2", region_name="us-east-1").describe_instances(Filters=[{"Name": "tag:a", "Values": ["b c"]}])
print("ec2: ok")
print(boto3.client("sts", region_name="us-east-1").get_caller_identity()["Account"])

url = s3.generate_presigned_url("get_object", Params={"Bucket": "data", "Key": "shared"}, ExpiresIn=60)
print("presigned:", url)
